#!/bin/sh
# An MCP server that starts faster than any other can, to crash often: its tool `crash` exits, its tool `stay` answers.
# It speaks the legacy era alone, and understands just what it must.
echo "start $$" >> "$FAKE_LOG"
while IFS= read -r line; do
    id=${line#*\"id\":}
    id=${id%%[,\}]*}
    case $line in
    *'"method":"initialize"'*)
        result='{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"crashing","version":"1"}}'
        ;;
    *'"method":"tools/list"'*)
        result='{"tools":[{"name":"crash","inputSchema":{"type":"object"}},{"name":"stay","inputSchema":{"type":"object"}}]}'
        ;;
    *'"name":"crash"'*) exit 3 ;;
    *'"method":"tools/call"'*) result='{"content":[]}' ;;
    *) continue ;;
    esac
    printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
done
