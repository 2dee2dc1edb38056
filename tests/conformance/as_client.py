#!/usr/bin/env python3
"""The command that the suite runs as the client under test: a gateway with the suite's server behind it.

    as_client.py WAYSTATION FOLDER URL

Starts the gateway in FOLDER with URL as its only backend, does before it what the scenario wants done, and ends it. The
scenario's name, revision and context come in the environment (MCP_CONFORMANCE_…). The suite judges by what its server
saw. Exit 1 when something could not be done at all.
"""

import json
import os
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import lane  # noqa: E402
import peers  # noqa: E402

SCENARIO = os.environ["MCP_CONFORMANCE_SCENARIO"]
REVISION = os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"]
CONTEXT = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
ASKED = {"elicitation": {}, "sampling": {}, "roots": {}}


class Modern(lane.Client):
    """One that repeats arguments in headers where a tool wants it, and makes the rounds that a server asks for."""

    tools = ()

    def post(self, message):
        self.headers = {}
        params = message.get("params", {})
        schema = next((tool["inputSchema"] for tool in self.tools if tool["name"] == params.get("name")), {})
        self.mirror(schema, params.get("arguments", {}))
        return super().post(message)

    def mirror(self, schema, arguments):
        for name, inner in schema.get("properties", {}).items():
            value = arguments.get(name)
            if isinstance(value, dict):
                self.mirror(inner, value)
            elif value is not None and "x-mcp-header" in inner:
                text = value if isinstance(value, str) else json.dumps(value)
                self.headers[f"Mcp-Param-{inner['x-mcp-header']}"] = lane.header(text)

    def call(self, tool, arguments=None):
        params = {"name": tool, "arguments": arguments or {}}
        for _ in range(5):
            result = self.request("tools/call", params)
            if result["resultType"] == "complete":
                return result
            responses = {key: accept(asked.get("params", {})) for key, asked in result["inputRequests"].items()}
            params = {"name": tool, "arguments": arguments or {}, "inputResponses": responses}
            if "requestState" in result:
                params["requestState"] = result["requestState"]
        raise lane.Refused(f"{tool} wants ever more rounds")


def accept(params):
    """An elicitation accepted: with the defaults of the form, or with something that fits."""
    properties = params.get("requestedSchema", {}).get("properties", {})
    fitting = {"boolean": True, "integer": 1, "number": 1.5}
    content = {name: inner.get("default", fitting.get(inner["type"], "x")) for name, inner in properties.items()}
    return {"action": "accept", "content": content}


def legacy(url):
    """What the scenarios of 2025-06-18 and 2025-11-25 want done."""
    answers = {"elicitation/create": accept}
    capabilities = {"elicitation": {}} if SCENARIO.startswith("elicitation") else {}
    with peers.Streamable(url, REVISION, capabilities, answers).open() as client:
        tools = until_listed(lambda: client.result("tools/list")["tools"])
        match SCENARIO:
            case "tools_call":
                client.result("tools/call", {"name": "add_numbers", "arguments": {"a": 5, "b": 3}})
            case "json-schema-2020-12-preservation":
                client.result("tools/call", echoed(tools))
            case "elicitation-sep1034-client-defaults" | "sse-retry":
                client.result("tools/call", {"name": tools[0]["name"], "arguments": {}})


def modern(url):
    """What those of 2026-07-28 want done."""
    client = Modern(url, REVISION, ASKED)
    client.tools = tools = until_listed(lambda: client.request("tools/list")["tools"])
    match SCENARIO:
        case "tools_call":
            client.call("add_numbers", {"a": 5, "b": 3})
        case "json-schema-2020-12-preservation":
            client.request("tools/call", echoed(tools))
        case "http-standard-headers":
            client.call(tools[0]["name"])
            client.request("resources/read", {"uri": client.names("resources", by="uri")[0]})
            client.request("prompts/get", {"name": client.names("prompts")[0], "arguments": {}})
        case "http-custom-headers":
            for call in CONTEXT["toolCalls"]:
                tolerate(client.call, call["name"], call["arguments"])
        case "http-invalid-tool-headers":
            for tool in tools:
                tolerate(client.call, tool["name"], {"region": "us-west1"})
        case "sep-2322-client-request-state":
            for tool in tools:
                tolerate(client.call, tool["name"])


def echoed(tools):
    """A call that takes the schema of a tool back to the server that listed it."""
    schema = next(tool["inputSchema"] for tool in tools if tool["name"] == "json_schema_2020_12_tool")
    return {"name": "json_schema_echo", "arguments": {"schema": schema}}


def tolerate(call, *arguments):
    """What the suite's server makes of it is the suite's to judge."""
    try:
        call(*arguments)
    except lane.Refused as why:
        print(f"refused: {why}", file=sys.stderr)


def until_listed(tools, seconds=10):
    """The list, once the gateway has met its backend. Some scenarios have no tools."""
    end = time.monotonic() + (1 if SCENARIO in ("initialize", "request-metadata") else seconds)
    while not (found := tools()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def main():
    waystation, folder, url = sys.argv[1:]
    gateway = lane.Gateway(waystation, folder, lane.backend("conf", url=url))
    try:
        (modern if REVISION >= lane.MODERN else legacy)(f"{gateway.base}/mcp/conf")
    finally:
        gateway.stop()


main()
