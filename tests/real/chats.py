"""Do strangers get on with models behind the gateway? Official MCP clients in front of the backend `openrouter`, a stranger's
server beside it that asks the same models, another that asks its client for a text of one, and what reaches OpenRouter of all that.

`openrouter-sim` stands for OpenRouter. Its journal shows what the gateway has sent, and whether a call that nobody wanted
any more was ended.
"""

import json
import subprocess
import time

import lane
from lane import LEGACY, MODERN, guarded
from servers import HERE, SECONDS

CLIENTS = {"@modelcontextprotocol/client 2.4": "chatting.mjs", "mcp (Python)": "chatting.py"}
REVISIONS = {"legacy": LEGACY[-1], "modern": MODERN}
WORDS = "[[sim:words n=400]]"
SLOW = "[[sim:words n=3000]] [[sim:slow-tokens ms=50]]"


class Front:
    """The gateway: models, and the strangers' servers."""

    def __init__(self, waystation, tools, simulator, folder):
        self.simulator, self.folder = simulator, folder
        council = str(lane.python_tools(HERE / "council") / "mcp-llm-council")
        models = "acme/atlas-70b,acme/atlas-8b,sim/persona-yes"
        key = {"env": "OPENROUTER_API_KEY"}
        environment = {
            "OPENROUTER_API_KEY": key, "OPENROUTER_API_URL": f"{simulator.base}/chat/completions",
            "COUNCIL_MODELS": models, "CHAIRMAN_MODEL": "acme/atlas-70b",
        }
        chat = lane.backend("chat", openrouter={"api_key": key, "upstream": {"base_url": simulator.base}})
        tables = chat + lane.backend("council", command=council, env=environment)
        everything = [str(tools.package("server-everything") / "dist" / "index.js"), "stdio"]
        tables += lane.backend("everything", command=str(tools.node), args=everything, sampler={"backend": "chat"})
        self.gateway = lane.Gateway(waystation, folder, tables, env={"OPENROUTER_API_KEY": "sk-or-v1-sim"})

    def client(self):
        return lane.Client(f"{self.gateway.base}/mcp", MODERN)


def until(found, seconds=SECONDS):
    """The first answer that is not nothing."""
    end = time.monotonic() + seconds
    while not (answer := found()) and time.monotonic() < end:
        time.sleep(0.1)
    return answer


def report(tools, script, plan, folder):
    path = folder / f"{script}-{plan['era']}.json"
    path.write_text(json.dumps(plan))
    command = [tools.node, tools.npm / script] if script.endswith(".mjs") else [tools.python / "python", HERE / "clients" / script]
    done = subprocess.run([str(part) for part in [*command, path]], capture_output=True, text=True, timeout=2 * SECONDS)
    if done.returncode != 0:
        raise ValueError(f"{script} ended with {done.returncode}: {done.stderr[-1500:]}")
    return json.loads(done.stdout)


def check_client(tally, front, tools, name, script, era):
    """Lists, says, hears, says again under one key, goes on, and gives up (T4)."""
    what, mark = f"{name} at {REVISIONS[era]}", f"{script} {era}"
    key = {"message": f"{mark} once", "idempotency_key": f"lane-{script}-{era}"}
    before = len(front.simulator.journal())
    plan = {
        "url": f"{front.gateway.base}/mcp", "era": era, "tool": "chat__chat",
        "say": [{"message": f"{mark} {WORDS}"}, key, key, {"message": f"{mark} [[sim:midstream after=7]]"}],
        "cancel": {"message": f"{mark} {SLOW}"},
    }
    seen = report(tools, script, plan, front.folder)
    tally.equal(f"{what} is answered as that", seen["revision"], REVISIONS[era])
    tally.check(f"{what} lists chat", {"chat__chat", "chat__conversation_get"} <= set(seen["tools"]), seen["tools"])
    words, once, again, broken = seen["said"]
    tally.equal(f"{what}: the pieces are the text", words["deltas"], words["said"]["text"])
    tally.check(f"{what}: there are many pieces, and each counts further", words["pieces"] > 1 and words["rising"], words)
    tally.equal(f"{what}: the pieces name their turn", words["turns"], [words["said"]["turn_id"]])
    tally.check(f"{what}: the second message is the second turn", once["said"]["text"].startswith(f"[acme/atlas-70b] turn 2: {mark} once"), once)
    tally.equal(f"{what}: the same key has the same answer", again["said"]["text"], once["said"]["text"])
    tally.equal(f"{what}: which says that it was given before", [once["said"]["replayed"], again["said"]["replayed"]], [False, True])
    tally.equal(f"{what}: an answer that breaks off is no error", [broken["isError"], broken["said"]["status"]], [False, "incomplete"])
    tally.check(f"{what}: and its pieces are what is kept of it", broken["deltas"] and broken["deltas"] == broken["said"]["text"], broken)

    def asked(text):
        return [entry for entry in front.simulator.journal()[before:] if last_message(entry).endswith(text)]

    tally.equal(f"{what}: under one key it was asked once", len(asked(f"{mark} once")), 1)
    check_cancelled(tally, front, what, seen["cancelled"], lambda: asked(SLOW))


def last_message(entry):
    messages = entry["body"].get("messages") if isinstance(entry["body"], dict) else None
    content = messages[-1]["content"] if messages else ""
    return content if isinstance(content, str) else content[-1].get("text", "")


def check_cancelled(tally, front, what, cancelled, asked):
    tally.equal(f"{what}: a call is given up", cancelled["ended"], "cancelled")
    gone = until(lambda: all(entry["client_gone_at"] for entry in asked()) and asked())
    tally.check(f"{what}: the model hears of it", gone, asked())
    arguments = {"conversation_id": cancelled["conversation"], "include_turns": True}

    def ended():
        got = front.client().call("chat__conversation_get", arguments)["structuredContent"]
        return got["turns"][0]["state"] not in ("pending", "running") and got

    got = until(ended)
    turn = got and got["turns"][0]
    tally.check(f"{what}: its turn is incomplete", turn and (turn["state"], turn.get("incomplete_reason")) == ("incomplete", "cancelled"), got)
    kept = next((message["text"] for message in got["messages"] if message["role"] == "assistant"), "") if got else ""
    tally.check(f"{what}: what was heard of it is kept", cancelled["deltas"] and kept.startswith(cancelled["deltas"]), [cancelled, kept])


def check_council(tally, front):
    """A stranger's server asks the models that the gateway asks too (T5)."""
    client = front.client()
    listed = until(lambda: [name for name in client.names("tools") if name.startswith("council__")])
    tally.check("mcp-llm-council lists council_jury through the gateway", "council__council_jury" in listed, listed)
    before = len(front.simulator.journal())
    result = client.call("council__council_jury", {"question": "Should this be released?"})
    text = lane.text_of(result)
    tally.check("council_jury is no error", not result.get("isError"), text)
    tally.check("council_jury has counted the votes", "**Tally:**" in text and "sim/persona-yes: YES" in text, text)
    asked = {entry["model"] for entry in front.simulator.journal()[before:]}
    tally.check("the simulator has answered the whole council", {"acme/atlas-70b", "acme/atlas-8b", "sim/persona-yes"} <= asked, asked)


def check_sampler(tally, front):
    """server-everything asks its client for a text of a model, and the client has none."""
    for revision in (*LEGACY[1:], MODERN):
        client, prompt = lane.Client(f"{front.gateway.base}/mcp", revision), f"lane at {revision}"
        tool = "everything__trigger-sampling-request"
        listed = until(lambda: tool in client.names("tools"))
        tally.check(f"a tool that wants a model is listed at {revision}", listed, client.names("tools"))
        before = len(front.simulator.journal())
        text = lane.text_of(client.call(tool, {"prompt": prompt, "maxTokens": 40}))
        tally.check(f"a client without a model has a text of one at {revision}", prompt in text and '"model": "acme/atlas-70b"' in text, text)
        asked = [entry["body"] for entry in front.simulator.journal()[before:] if entry["path"].endswith("/chat/completions")]
        told = [body["messages"][0] for body in asked]
        tally.equal(f"as the server wanted it at {revision}", told, [{"role": "system", "content": "You are a helpful test server."}])
        tally.equal(f"and no longer at {revision}", [(body["max_completion_tokens"], body["temperature"]) for body in asked], [(40, 0.7)])


def check_more(tally, front):
    """What else a request may have, for whoever looks at the journal."""
    client = front.client()
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
    picture = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    function = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    calls = {
        "chat__chat, with everything": ("chat", {
            "message": "all", "system_prompt": "Be brief.", "temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["END"], "max_output_tokens": 64,
            "reasoning_effort": "low", "response_format": {"type": "json_schema", "name": "n", "schema": schema}, "fallback_models": ["acme/atlas-8b"],
            "provider": {"sort": "price", "data_collection": "deny", "zdr": True, "max_prompt_price_per_m": 100},
        }),
        "chat__chat, with a picture": ("chat", {"message": "see", "model": "acme/atlas-vision", "attachments": [{"kind": "image", "data": picture, "mime_type": "image/png"}]}),
        "chat__chat, searching": ("chat", {"message": "find", "web_search": {"max_results": 2}}),
        "chat__complete": ("complete", {"messages": [{"role": "user", "content": "call:look"}], "tools": [function], "tool_choice": "auto"}),
        "chat__compare_models": ("compare_models", {"models": ["acme/atlas-70b", "acme/atlas-8b"], "prompt": "hello"}),
    }
    for what, (tool, arguments) in calls.items():
        result = client.call(f"chat__{tool}", arguments)
        tally.check(f"{what} is no error", not result.get("isError"), lane.text_of(result))


def check_requests(tally, front, validate, since):
    """All that the gateway has sent is what OpenRouter takes (T6)."""
    sent = [entry for entry in front.simulator.journal()[since:] if entry["path"].endswith("/chat/completions")]
    own = [entry for entry in sent if entry["headers"].get("user-agent", "").startswith("waystation/")]
    wrong = [f"{json.dumps(entry['body'])[:300]}: {why}" for entry, why in zip(own, validate([entry["body"] for entry in own]), strict=True) if why]
    tally.check(f"all {len(own)} chats of the gateway are a ChatRequest", len(own) >= 20 and not wrong, wrong[:1] or sorted({entry["headers"].get("user-agent") for entry in sent}))


def check(tally, waystation, tools, simulator, folder, validate):
    """`validate` says of each body what is wrong with it as a request, or nothing."""
    folder.mkdir()
    since = len(simulator.journal())
    front = Front(waystation, tools, simulator, folder)
    try:
        for name, script in CLIENTS.items():
            for era in REVISIONS:
                guarded(tally, check_client, front, tools, name, script, era)
        guarded(tally, check_council, front)
        guarded(tally, check_sampler, front)
        guarded(tally, check_more, front)
        guarded(tally, check_requests, front, validate, since)
    finally:
        front.gateway.stop()
