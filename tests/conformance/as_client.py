#!/usr/bin/env python3
"""The command that the suite runs as the client under test: a gateway with the suite's server behind it.

    as_client.py WAYSTATION FOLDER URL

Starts the gateway in FOLDER with URL as its only backend, does before it what the scenario wants done, and ends it. The
scenario's name, revision and context come in the environment (MCP_CONFORMANCE_…). The suite judges by what its server
saw. Exit 1 when something could not be done at all.
"""

import html.parser
import http.cookiejar
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
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


# ---- Servers that want OAuth ---------------------------------------------------------------------------------

# How often the user goes to a page; a real one would give up earlier.
VISITS = 8
# A document about the gateway that is somewhere else, which one scenario wants to the letter.
DOCUMENT = "https://conformance-test.local/client-metadata.json"


class Form(html.parser.HTMLParser):
    """Whether a page has a form to be sent back to itself."""

    found = False

    def handle_starttag(self, tag, attributes):
        self.found = self.found or (tag == "form" and dict(attributes).get("method") == "post")


class Browser:
    """A user's, who presses the button. The suite's authorization server sends it back at once."""

    def __init__(self):
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))

    def visit(self, page):
        """Whether the account was connected."""
        shown, form = self.open(page), Form()
        form.feed(shown)
        return form.found and "<h1>Connected</h1>" in self.open(page, b"")

    def open(self, page, data=None):
        try:
            with self.opener.open(urllib.request.Request(page, data), timeout=20) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as no:
            text = no.read().decode(errors="replace")
            print(f"the page says {no.code}: {text}", file=sys.stderr)
            return text


def auth_settings(url):
    """The table [backends.conf.auth] that an operator would write for the scenario."""
    settings = {}
    if SCENARIO == "auth/basic-cimd":
        settings["client_id"] = DOCUMENT
    elif SCENARIO.startswith("auth/client-credentials"):
        settings["grant"] = "client-credentials"
    if "client_id" in CONTEXT:
        settings |= {"client_id": CONTEXT["client_id"], "issuer": CONTEXT.get("issuer") or issuer(url)}
    secret, key = CONTEXT.get("client_secret"), CONTEXT.get("private_key_pem")
    os.environ["CONFORMANCE_SECRET"] = secret or key or ""
    if secret or key:
        settings["client_secret" if secret else "private_key"] = {"env": "CONFORMANCE_SECRET"}
    return settings


def issuer(url):
    """Who gives tokens for the server, which the operator has been told with the client's name and secret."""
    with urllib.request.urlopen(url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp"), timeout=5) as answer:
        return json.load(answer)["authorization_servers"][0]


def authorized(gateway):
    """What all scenarios of authorization want: an account connected, the tools listed, one called; again where asked to."""
    browser = Browser()
    one, every = (client_of(gateway, path) for path in ("/mcp/conf", "/mcp"))
    for _ in range(VISITS):
        if not follow(browser, lambda: every("tools/call", {"name": "waystation__connect", "arguments": {"server": "conf"}})):
            break
    tools = until_listed(lambda: one("tools/list", {})["tools"], seconds=4)
    for _ in range(VISITS if tools else 0):
        if not follow(browser, lambda: one("tools/call", {"name": tools[0]["name"], "arguments": {}})):
            break


def client_of(gateway, path):
    """Asks an endpoint, in the revision of the scenario."""
    client = lane.Client(f"{gateway.base}{path}", REVISION)
    return lambda method, params: client.request(method, params)


def follow(browser, call):
    """Whether the answer was a link, and the user has come back from it with the account connected."""
    try:
        call()
    except lane.Refused as why:
        print(f"refused: {why}", file=sys.stderr)
        page = re.search(r"https?://[^ ]+/connect/[\w-]+", str(why))
        return bool(page) and browser.visit(page.group())
    return False


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
    auth = {"auth": auth_settings(url)} if SCENARIO.startswith("auth/") else {}
    gateway = lane.Gateway(waystation, folder, lane.backend("conf", url=url, **auth))
    try:
        if auth:
            authorized(gateway)
        else:
            (modern if REVISION >= lane.MODERN else legacy)(f"{gateway.base}/mcp/conf")
    finally:
        gateway.stop()


main()
