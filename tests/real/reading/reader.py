"""An MCP server over stdio that says which tool it carried out, read as Python reads JSON."""

import json
import sys

TOOLS = json.load(open(sys.argv[1]))


def answer(message):
    method, params = message["method"], message.get("params", {})
    if method == "initialize":
        about = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}}
        return {**about, "serverInfo": {"name": "reader", "version": "1"}}
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "tools/call":
        return {"content": [{"type": "text", "text": params["name"]}]}
    return {}


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": answer(message)}), flush=True)
