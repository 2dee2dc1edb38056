"""What the official suite does not cover, in its breadth: clients of every revision that opens with `initialize`, over
HTTP+SSE, standard input and output, and Streamable HTTP, with the suite's target behind the gateway in either era, over
standard input and output and Streamable HTTP. And how revisions are negotiated.

A scenario is a function below; what it is given is a session, and what it compares are contents. Every message that a
session has heard is then held against the official schema of its revision, and has no member that the revision lacks.

Python's standard library only. A part of tests/conformance/run, not a program of its own.
"""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import lane
import peers
import schema
from lane import LEGACY, MODERN

# The revisions after the first: 2025-03-26, 2025-06-18, 2025-11-25.
MARCH, JUNE, NOVEMBER = LEGACY[1:]
CAPABILITIES = {"sampling": {}, "roots": {}, "elicitation": {}}
WATCHED = "test://watched-resource"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
SCENARIOS = []


class Wrong(Exception):
    """What was seen is not what is right."""


def same(seen, right):
    if seen != right:
        raise Wrong(lane.difference(seen, right))


def scenario(since=LEGACY[0], till=LEGACY[-1]):
    def keep(function):
        SCENARIOS.append((function, since, till))
        return function

    return keep


class Scene:
    """A session, and another of a client that can be asked something; what stands behind, and what it lists."""

    def __init__(self, place, revision, client, asked, tools, elsewhere):
        self.place, self.revision, self.client, self.asked, self.tools = place, revision, client, asked, tools
        # Opens a session before another server of the same kind.
        self.elsewhere = elsewhere

    def call(self, tool, arguments=None, client=None, **more):
        return (client or self.client).result("tools/call", {"name": tool, "arguments": arguments or {}, **more})

    def has(self, revision):
        return self.revision >= revision


def text(words):
    return {"type": "text", "text": words}


def said(peer, mark, method):
    """The parameters of each message of this method since then."""
    return [message["params"] for message in peer.since(mark) if message.get("method") == method]


def read(s, uri):
    contents = s.client.result("resources/read", {"uri": uri})["contents"]
    return [{key: value for key, value in item.items() if key != "_meta"} for item in contents]


def refused(response):
    """Did a tool, or the gateway, say that the client cannot be asked?"""
    return "error" in response or "not supported" in response["result"]["content"][0]["text"]


# ---- The session -------------------------------------------------------------------------------------------------


@scenario()
def initialize(s):
    hello = s.client.hello
    same(hello["protocolVersion"], s.revision)
    same(hello["serverInfo"]["name"], "waystation")
    same({"tools", "prompts", "resources", "logging"} - set(hello["capabilities"]), set())
    same(hello["capabilities"]["resources"]["subscribe"], True)


@scenario()
def initialize_again(s):
    about = {"protocolVersion": s.revision, "capabilities": {}, "clientInfo": {"name": "peer", "version": "1"}}
    if not isinstance(s.client, peers.Streamable):
        same(s.client.ask("initialize", about)["error"]["code"], -32600)
        return
    # There it begins a session of its own, and ends none.
    first = s.client.session
    s.client.result("initialize", about)
    second, s.client.session = s.client.session, first
    same((second != first, s.client.result("ping")), (True, {}))


@scenario()
def ping(s):
    same(s.client.result("ping"), {})


@scenario()
def set_level(s):
    same(s.client.result("logging/setLevel", {"level": "info"}), {})
    same(s.client.ask("logging/setLevel", {"level": "loud"})["error"]["code"], -32602)


@scenario()
def an_unknown_method(s):
    same(s.client.ask("tools/destroy")["error"]["code"], -32601)
    same(s.client.ask("server/discover")["error"]["code"], -32601)


@scenario()
def an_id_of_either_kind(s):
    for number in ("a-ß", 4711):
        mark = s.client.mark()
        s.client.post({"jsonrpc": "2.0", "id": number, "method": "ping"})
        response = s.client.until("a pong", lambda message, number=number: message.get("id") == number, mark)
        same(response, {"jsonrpc": "2.0", "id": number, "result": {}})


@scenario()
def completion(s):
    argument = {"name": "arg1", "value": "par"}
    ref = {"type": "ref/prompt", "name": "test_prompt_with_arguments"}
    completed = s.client.result("completion/complete", {"ref": ref, "argument": argument})
    same(completed["completion"], {"values": ["paris", "park", "party"], "total": 3, "hasMore": False})


# ---- Tools -------------------------------------------------------------------------------------------------------


@scenario()
def tools_list(s):
    tools = s.client.result("tools/list")["tools"]
    same(sorted(tool["name"] for tool in tools if not tool["name"].startswith("waystation__")), s.tools)
    same([tool["name"] for tool in tools if tool["inputSchema"].get("type") != "object"], [])


@scenario()
def what_a_tool_says_of_itself(s):
    tool = next(tool for tool in s.client.result("tools/list")["tools"] if tool["name"] == "era_rich")
    right = {"name", "description", "inputSchema"}
    right |= {"annotations"} if s.has(MARCH) else set()
    right |= {"title", "outputSchema"} if s.has(JUNE) else set()
    right |= {"icons"} if s.has(NOVEMBER) else set()
    same(set(tool) - {"_meta", "execution"}, right)
    if s.has(JUNE):
        same(tool["outputSchema"]["properties"]["n"]["type"], "integer")


@scenario()
def tools_call_text(s):
    same(s.call("test_simple_text")["content"], [text("This is a simple text response for testing.")])


@scenario()
def tools_call_arguments(s):
    same(s.call("test_x_mcp_header", {"region": "ü \n\"west\""})["content"], [text("region=ü \n\"west\"")])


@scenario()
def tools_call_image(s):
    same(s.call("test_image_content")["content"], [{"type": "image", "data": PNG, "mimeType": "image/png"}])


@scenario(since=MARCH)
def tools_call_audio(s):
    same(s.call("test_audio_content")["content"], [{"type": "audio", "data": WAV, "mimeType": "audio/wav"}])


@scenario(till=LEGACY[0])
def tools_call_audio_where_there_is_none(s):
    (block,) = s.call("test_audio_content")["content"]
    same((block["type"], block["resource"]["mimeType"], block["resource"]["blob"]), ("resource", "audio/wav", WAV))


@scenario()
def tools_call_embedded_resource(s):
    (block,) = s.call("test_embedded_resource")["content"]
    same(block["type"], "resource")
    same((block["resource"]["mimeType"], block["resource"]["text"]), ("text/plain", "This is an embedded resource content."))


@scenario()
def tools_call_mixed(s):
    content = s.call("test_multiple_content_types")["content"]
    same([block["type"] for block in content], ["text", "image", "resource"])
    same(json.loads(content[2]["resource"]["text"]), {"test": "data", "value": 123})


@scenario()
def tools_call_rich(s):
    result = s.call("era_rich")
    if s.has(JUNE):
        same(result["structuredContent"], {"n": 7})
        link = {"type": "resource_link", "uri": "test://static-text", "name": "the text", "title": "Text"}
        same(result["content"][0], link)
    else:
        same("structuredContent" in result, False)
        same((result["content"][0], result["content"][2:]), (text("the text (test://static-text)"), [text('{"n":7}')]))
    same(result["content"][1]["type"], "audio" if s.has(MARCH) else "resource")


@scenario()
def tools_call_error(s):
    result = s.call("test_error_handling")
    same((result["isError"], result["content"]), (True, [text("This tool intentionally returns an error for testing")]))


@scenario()
def tools_call_unknown(s):
    same(s.client.ask("tools/call", {"name": "no_such_tool", "arguments": {}})["error"]["code"], -32602)


@scenario()
def tools_call_with_logging(s):
    mark = s.client.mark()
    result = s.call("test_tool_with_logging")
    same(result["content"], [text("Tool with logging executed successfully")])
    logs = said(s.client, mark, "notifications/message")
    right = ["Tool execution started", "Tool processing data", "Tool execution completed"]
    same([(log["level"], log["data"]) for log in logs], [("info", words) for words in right])


@scenario()
def tools_call_with_progress(s):
    for token in ("t-1", 7):
        mark = s.client.mark()
        s.call("test_tool_with_progress", _meta={"progressToken": token})
        steps = said(s.client, mark, "notifications/progress")
        steps = [(step["progressToken"], step["progress"], step["total"]) for step in steps]
        same(steps, [(token, n, 100) for n in (0, 50, 100)])


@scenario()
def tools_call_without_progress(s):
    mark = s.client.mark()
    same(s.call("test_tool_with_progress")["content"], [text("no-progress-token")])
    same(said(s.client, mark, "notifications/progress"), [])


@scenario()
def tools_call_with_sampling(s):
    mark = s.asked.mark()
    same(s.call("test_sampling", {"prompt": "2 + 2?"}, s.asked)["content"], [text("LLM response: four")])
    (asked,) = said(s.asked, mark, "sampling/createMessage")
    same((asked["messages"][0]["content"], asked["maxTokens"]), (text("2 + 2?"), 100))


@scenario(since=JUNE)
def tools_call_with_elicitation(s):
    mark = s.asked.mark()
    (block,) = s.call("test_elicitation", {"message": "Who?"}, s.asked)["content"]
    same(block["text"], 'User response: action=accept, content={"response":"Ada"}')
    (asked,) = said(s.asked, mark, "elicitation/create")
    same((asked["message"], asked["requestedSchema"]["required"]), ("Who?", ["response"]))
    same("mode" in asked and not s.has(NOVEMBER), False)


@scenario(till=MARCH)
def tools_call_with_elicitation_where_there_is_none(s):
    mark = s.asked.mark()
    response = s.asked.ask("tools/call", {"name": "test_elicitation", "arguments": {"message": "Who?"}})
    same((refused(response), said(s.asked, mark, "elicitation/create")), (True, []))


@scenario(since=NOVEMBER)
def tools_call_with_elicitation_of_defaults_and_enums(s):
    age = {"type": "integer", "description": "User age", "default": 30}
    choice = {"type": "string", "enum": ["option1", "option2", "option3"]}
    for tool, member, right in (("sep1034_defaults", "age", age), ("sep1330_enums", "untitledSingle", choice)):
        mark = s.asked.mark()
        (block,) = s.call(f"test_elicitation_{tool}", client=s.asked)["content"]
        same(block["text"].startswith("Elicitation completed: action=accept"), True)
        (asked,) = said(s.asked, mark, "elicitation/create")
        same(asked["requestedSchema"]["properties"][member], right)


@scenario()
def tools_call_of_one_that_cannot_be_asked(s):
    response = s.client.ask("tools/call", {"name": "test_sampling", "arguments": {"prompt": "?"}})
    same(refused(response), True)


@scenario()
def tools_call_cancelled(s):
    # Elsewhere: while a cancelled call may still have something to say, no log is passed on from where it ran.
    with s.elsewhere() as client:
        before = int(s.call("era_cancelled", client=client)["content"][0]["text"])
        mark = client.mark()
        slow = client.send("tools/call", {"name": "era_slow", "arguments": {}})
        time.sleep(0.3)
        client.tell("notifications/cancelled", {"requestId": slow, "reason": "a test"})
        end = time.monotonic() + 10
        while int(s.call("era_cancelled", client=client)["content"][0]["text"]) == before:
            if time.monotonic() > end:
                raise Wrong("the server was not told")
            time.sleep(0.05)
        same([message for message in client.since(mark) if message.get("id") == slow], [])


@scenario()
def many_calls_at_once(s):
    mark = s.client.mark()
    calls = [{"name": "test_x_mcp_header", "arguments": {"region": str(n)}} for n in range(12)]
    numbers = [s.client.send("tools/call", call) for call in calls]
    for n, number in enumerate(numbers):
        same(s.client.response(number, mark)["result"]["content"], [text(f"region={n}")])


# ---- Resources ---------------------------------------------------------------------------------------------------


@scenario()
def resources_list(s):
    listed = {item["uri"]: item for item in s.client.result("resources/list")["resources"]}
    same(sorted(listed), ["test://static-binary", "test://static-text", WATCHED])
    item = listed["test://static-text"]
    title = "Static Text Resource" if s.has(JUNE) else None
    same((item["name"], item["mimeType"], item.get("title")), ("static-text", "text/plain", title))


@scenario()
def resources_read_text(s):
    right = {"uri": "test://static-text", "mimeType": "text/plain", "text": "This is the content of the static text resource."}
    same(read(s, right["uri"]), [right])


@scenario()
def resources_read_binary(s):
    right = {"uri": "test://static-binary", "mimeType": "image/png", "blob": PNG}
    same(read(s, right["uri"]), [right])


@scenario()
def resources_templates(s):
    (template,) = s.client.result("resources/templates/list")["resourceTemplates"]
    same(template["uriTemplate"], "test://template/{id}/data")
    (item,) = s.client.result("resources/read", {"uri": "test://template/123/data"})["contents"]
    same(json.loads(item["text"]), {"id": "123", "templateTest": True, "data": "Data for ID: 123"})


@scenario()
def resources_read_unknown(s):
    same(s.client.ask("resources/read", {"uri": "none://at-all"})["error"]["code"], -32002)


@scenario()
def resources_subscribe(s):
    if s.place == "stdio modern":
        return  # The target has no way to publish there.
    def updates(mark):
        return [params["uri"] for params in said(s.client, mark, "notifications/resources/updated")]

    same(s.client.result("resources/subscribe", {"uri": WATCHED}), {})
    mark, end = s.client.mark(), time.monotonic() + 10
    while not updates(mark):
        # The backend hears of a subscription a little after the client does.
        s.call("era_touch")
        time.sleep(0.05)
        if time.monotonic() > end:
            raise Wrong("no word of the change")
    same(set(updates(mark)), {WATCHED})
    same(s.client.result("resources/unsubscribe", {"uri": WATCHED}), {})
    time.sleep(0.2)
    mark = s.client.mark()
    s.call("era_touch")
    time.sleep(0.2)
    same(updates(mark), [])


# ---- Prompts -----------------------------------------------------------------------------------------------------


def prompt(s, name, arguments=None):
    messages = s.client.result("prompts/get", {"name": name, "arguments": arguments or {}})["messages"]
    return [message["content"] for message in messages]


@scenario()
def prompts_list(s):
    listed = {item["name"]: item for item in s.client.result("prompts/list")["prompts"]}
    with_something = [f"test_prompt_with_{what}" for what in ("arguments", "embedded_resource", "image")]
    same(sorted(listed), ["test_input_required_result_prompt", *with_something, "test_simple_prompt"])
    arguments = [(one["name"], one["description"], one["required"]) for one in listed[with_something[0]]["arguments"]]
    same(arguments, [("arg1", "First test argument", True), ("arg2", "Second test argument", True)])
    same(listed["test_simple_prompt"].get("title"), "Simple" if s.has(JUNE) else None)


@scenario()
def prompts_get(s):
    same(prompt(s, "test_simple_prompt"), [text("This is a simple prompt for testing.")])
    right = [text("Prompt with arguments: arg1='a', arg2='ß'")]
    same(prompt(s, "test_prompt_with_arguments", {"arg1": "a", "arg2": "ß"}), right)


@scenario()
def prompts_get_embedded_resource(s):
    first, second = prompt(s, "test_prompt_with_embedded_resource", {"resourceUri": "test://static-text"})
    same((first["type"], first["resource"]["text"]), ("resource", "Embedded resource content for testing."))
    same(second, text("Please process the embedded resource above."))


@scenario()
def prompts_get_image(s):
    right = [{"type": "image", "data": PNG, "mimeType": "image/png"}, text("Please analyze the image above.")]
    same(prompt(s, "test_prompt_with_image"), right)


@scenario()
def prompts_get_unknown(s):
    same(s.client.ask("prompts/get", {"name": "no_such_prompt"})["error"]["code"], -32602)


@scenario()
def prompts_get_without_its_arguments(s):
    same(s.client.ask("prompts/get", {"name": "test_prompt_with_arguments"})["error"]["code"], -32602)


# ---- Batches -----------------------------------------------------------------------------------------------------


def batch(s):
    numbers = [s.client.next_id(), s.client.next_id()]
    s.client.sent[numbers[1]] = "tools/call"
    messages = [
        {"jsonrpc": "2.0", "id": numbers[0], "method": "ping"},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": numbers[1], "method": "tools/call", "params": {"name": "test_simple_text", "arguments": {}}},
    ]
    mark = s.client.mark()
    s.client.post(messages)
    return numbers, mark


@scenario(since=MARCH, till=MARCH)
def a_batch(s):
    numbers, mark = batch(s)
    same(s.client.response(numbers[0], mark)["result"], {})
    same(s.client.response(numbers[1], mark)["result"]["content"], [text("This is a simple text response for testing.")])


@scenario(since=MARCH, till=MARCH)
def a_batch_with_a_call_that_asks(s):
    number, mark = s.asked.next_id(), s.asked.mark()
    s.asked.sent[number] = "tools/call"
    params = {"name": "test_sampling", "arguments": {"prompt": "2 + 2?"}}
    s.asked.post([{"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}])
    response = s.asked.response(number, mark)
    if isinstance(s.asked, peers.Streamable):
        # There the answers come together as JSON, and the client can be asked nothing before.
        same(refused(response), True)
    else:
        same(response["result"]["content"], [text("LLM response: four")])


@scenario(till=LEGACY[0])
@scenario(since=JUNE)
def a_batch_where_there_are_none(s):
    numbers, mark = batch(s)
    refused = s.client.until("a refusal", lambda message: "error" in message, mark)
    same((refused["error"]["code"], refused.get("id")), (-32600, None))
    same([message for message in s.client.since(mark) if message.get("id") in numbers], [])


# ---- The runs ----------------------------------------------------------------------------------------------------


class Place:
    """A server behind the gateway: how it is reached, and in which era."""

    def __init__(self, name, **settings):
        self.name, self.settings = name, settings
        self.key = name.replace(" ", "-").lower()

    def twin(self):
        """Another server of the same kind."""
        return Place(f"{self.name} 2", **self.settings)


def answers():
    def accept(params):
        values = {"boolean": True, "integer": 1, "number": 1.5, "array": []}
        properties = params["requestedSchema"]["properties"]
        content = {}
        for name, inner in properties.items():
            if "oneOf" not in inner:
                content[name] = inner.get("default", inner.get("enum", [values.get(inner["type"], "Ada")])[0])
        return {"action": "accept", "content": content}

    four = {"role": "assistant", "model": "m", "content": text("four")}
    return {
        "elicitation/create": accept, "sampling/createMessage": lambda _: four, "roots/list": lambda _: {"roots": []},
    }


class Run:
    """All sessions with one gateway."""

    def __init__(self, board, waystation, folder, gateway, tools):
        self.board, self.waystation, self.folder, self.gateway, self.tools = board, waystation, folder, gateway, tools
        self.lock = threading.Lock()

    def peer(self, transport, place, *about):
        if transport is peers.Streamable:
            return transport(f"{self.gateway.base}/mcp/{place.key}", *about)
        if transport is peers.Sse:
            return transport(f"{self.gateway.base}/sse/{place.key}", *about)
        with self.lock:
            number = len(list(self.folder.glob("stdio-*")))
            folder = self.folder / f"stdio-{number}"
            folder.mkdir()
        table = lane.backend(place.key, prefix="", **place.settings)
        (folder / "routes.toml").write_text(f"[store]\npath = {lane.toml(str(folder / 'store.db'))}\n\n{table}")
        return transport([self.waystation, "stdio", "--config", folder / "routes.toml"], folder / "log", *about)

    def session(self, transport, place, revision):
        """Every scenario on one session, then the schema of its revision."""
        row = f"{transport.transport}, {revision}, {place.name}"
        began, wrong = time.monotonic(), 0
        try:
            with (
                self.peer(transport, place, revision).open() as client,
                self.peer(transport, place, revision, CAPABILITIES, answers()).open() as asked,
            ):
                for one in (client, asked):
                    self.settle(one)
                def elsewhere():
                    return self.peer(transport, place.twin(), revision).open()

                scene = Scene(place.name, revision, client, asked, self.tools, elsewhere)
                chosen = [function for function, since, till in SCENARIOS if since <= revision <= till]
                for function in chosen:
                    wrong += self.judge(row, function.__name__.replace("_", " "), function, scene)
                for one in (client, asked):
                    wrong += self.judge(row, "every message is of the revision", self.held_against, one)
                every, seconds = len(chosen) + 2, time.monotonic() - began
                print(f"..    {row}: {every - wrong} of {every} right ({seconds:.0f} s)", flush=True)
        except Exception as why:  # noqa: BLE001
            self.board.check(row, "the session", f"{type(why).__name__}: {why}")

    def settle(self, peer):
        """Its lists are whole."""
        end = time.monotonic() + 20
        while not set(self.tools) <= {tool["name"] for tool in peer.result("tools/list")["tools"]}:
            if time.monotonic() > end:
                raise Wrong("the lists were never whole")
            time.sleep(0.1)

    def judge(self, row, what, work, *arguments):
        """One check: what goes wrong in it is its fault. Gives whether anything did."""
        fault = ""
        try:
            work(*arguments)
        except Exception as why:  # noqa: BLE001 - whatever it is, it is a failed check, and the others still run
            fault = f"{type(why).__name__}: {why}"
        self.board.check(row, what, fault)
        return bool(fault)

    def held_against(self, peer):
        faults = []
        for _, message in peer.heard:
            found = schema.of(peer.revision).of_message(message, peer.sent.get(message.get("id"), "ping"))
            faults += [f"{peer.sent.get(message.get('id'), message.get('method'))}: {fault}" for fault in found]
        same("; ".join(sorted(set(faults))), "")
        if isinstance(peer, peers.Stdio):
            same(peer.noise, [])

    def negotiation(self, transport, place):
        """Which revision is answered to which."""
        for asked in (*LEGACY, "1999-01-01", "2030-01-01", MODERN, ""):
            right = asked if asked in LEGACY else LEGACY[-1]
            with self.peer(transport, place, asked) as peer:
                def answered(peer=peer, right=right):
                    same(peer.open().hello["protocolVersion"], right)

                self.judge(transport.transport, f"{asked!r} is answered with {right}", answered)
        with self.peer(transport, place, None) as peer:
            def absent(peer=peer):
                about = {"capabilities": {}, "clientInfo": {"name": "peer", "version": "1"}}
                for version in ({}, {"protocolVersion": 7}, {"protocolVersion": None}):
                    same(peer.ask("initialize", {**about, **version})["error"]["code"], -32602)
                # It may begin once more, and do it right.
                peer.revision = LEGACY[0]
                same(peer.open().hello["protocolVersion"], LEGACY[0])

            self.judge(transport.transport, "no revision at all is refused", absent)
        with self.peer(transport, place, LEGACY[0]) as peer:
            def too_early(peer=peer):
                same(peer.ask("tools/list")["error"]["code"], -32600 if transport is not peers.Streamable else -32000)

            self.judge(transport.transport, "nothing comes before initialize", too_early)


def check(board, suite, waystation, folder):
    folder.mkdir()
    script = [str(suite.node), str(suite.home / "target.mjs")]
    running, places = [], []
    try:
        for era in ("legacy", "modern"):
            port = lane.free_port()
            command = [*script, "--port", port, "--era", era]
            running.append(lane.Process(command, folder / f"target-{era}.log"))
            running[-1].wait_until(lambda port=port: lane.listening(port), "the target server")
            places.append(Place(f"HTTP {era}", url=f"http://127.0.0.1:{port}/mcp"))
            over_stdio = [*script[1:], "--stdio", "--era", era]
            places.append(Place(f"stdio {era}", command=script[0], args=over_stdio, era=era))
        every = [*places, *(place.twin() for place in places)]
        with_all = "".join(lane.backend(place.key, **place.settings) for place in every)
        tools = lane.Client(f"{places[0].settings['url']}", LEGACY[-1]).names("tools")
        gateway = lane.Gateway(waystation, folder, with_all)
        running.append(gateway)
        run = Run(board, waystation, folder, gateway, tools)
        transports = (peers.Sse, peers.Stdio, peers.Streamable)
        with ThreadPoolExecutor(2) as pool:
            # One session at a time before each place: what a server says to nobody in particular is passed on only
            # while one call alone is under way.
            def all_of(place):
                for revision in LEGACY:
                    for transport in transports:
                        run.session(transport, place, revision)

            list(pool.map(all_of, places))
        for transport in transports:
            began = time.monotonic()
            run.negotiation(transport, places[0])
            print(f"..    {transport.transport}: revisions negotiated ({time.monotonic() - began:.0f} s)", flush=True)
    finally:
        for process in reversed(running):
            process.stop()
