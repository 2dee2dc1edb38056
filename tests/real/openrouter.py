"""Is the OpenRouter simulator like OpenRouter? The official SDKs say so, whose schemas are OpenRouter's description of itself.

Five clients (openrouter/) have the same answers and the same faults from `openrouter-sim`, and each takes them as it takes those
of OpenRouter: TABLE. Then each calls every endpoint that it has a method for; and whatever the simulator sends, and its journal
says it was sent, is held against the schemas of both SDKs. Last, the gateway stands in between (chats.py).
"""

import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import chats
import lane

HERE = Path(__file__).resolve().parent / "openrouter"
KEY = "sk-or-v1-sim"
TOKEN = "of-the-lane"
SECONDS = 300
MODEL = "acme/atlas-70b"
CLIENTS = ("@openrouter/sdk", "openrouter (Python)", "openai", "openai (Python)", "ai")

OK = "ok"
# Some text, no reason, and nobody notices.
SILENT = "silent"
# Name of a case, the directive, whether it is streamed, and what it is to each of CLIENTS: a verdict, with the number of
# requests where it is not one. `patient` cases leave the client's own tries as they are.
TABLE = [
    ("plain stream", "", True, [OK] * 5),
    ("plain answer", "", False, [OK] * 5),
    ("usage without choices", "usage-empty", True, [OK] * 5),
    ("no [DONE]", "no-done", True, [OK] * 5),
    ("CR LF", "crlf", True, [OK] * 5),
    ("byte by byte", "split", True, [OK] * 5),
    ("many events at once", "multi", True, [OK] * 5),
    ("a long comment", "pad", True, [OK] * 5),
    ("no usage", "no-usage", True, ["ok without usage"] * 5),
    ("error in the middle", "midstream", True, ["error 502, finish error", "error 502, finish error", "APIError", "APIError", "error, finish error"]),
    ("the same with a text as code", "midstream-string", True, ["ZodError", "ResponseValidationError 200", "APIError", "APIError", "error, finish error"]),
    ("the same bare", "midstream-bare", True, ["ZodError", "ResponseValidationError 200", "APIError", "APIError", "error, finish error"]),
    ("truncated", "truncate", True, [SILENT, SILENT, SILENT, SILENT, "finish other"]),
    ("reset", "reset", True, ["TypeError", "ReadError", "TypeError", "APIConnectionError", "error, finish error"]),
    ("one event that is no JSON", "bad-chunk", True, ["ZodError", "ResponseValidationError 200", "SyntaxError", "JSONDecodeError", "error, goes on"]),
    ("200 with an error", "ok-error", False, ["ResponseValidationError 200", "ResponseValidationError 200", "no choices", "no choices", "APICallError 200"]),
    ("429 once", "429 after=1", False, ["TooManyRequestsResponseError 429", "TooManyRequestsResponseError 429", "ok in 2", "ok in 2", "ok in 2"]),
    ("429 of the day", "429-daily", False, ["TooManyRequestsResponseError 429", "TooManyRequestsResponseError 429", "RateLimitError 429 in 3", "RateLimitError 429 in 3", "RetryError in 3"]),
    ("502 once", "502 times=1", False, ["ok in 2"] * 5),
    ("503", "503", False, ["ServiceUnavailableResponseError 503", "ServiceUnavailableResponseError 503", "InternalServerError 503 in 3", "InternalServerError 503 in 3", "RetryError in 3"]),
    ("524", "524", False, ["EdgeNetworkTimeoutResponseError 524", "EdgeNetworkTimeoutResponseError 524", "InternalServerError 524 in 3", "InternalServerError 524 in 3", "RetryError in 3"]),
    ("529", "529", False, ["ProviderOverloadedResponseError 529", "ProviderOverloadedResponseError 529", "InternalServerError 529 in 3", "InternalServerError 529 in 3", "RetryError in 3"]),
    ("502 with HTML", "html-502", False, ["OpenRouterDefaultError 502", "OpenRouterDefaultError 502", "InternalServerError 502 in 3", "InternalServerError 502 in 3", "RetryError in 3"]),
    ("400 for the window", "400-context", False, ["BadRequestResponseError 400", "BadRequestResponseError 400", "BadRequestError 400", "BadRequestError 400", "APICallError 400"]),
    ("402", "402", False, ["PaymentRequiredResponseError 402", "PaymentRequiredResponseError 402", "APIError 402", "APIStatusError 402", "APICallError 402"]),
    ("403", "403-moderation", False, ["ForbiddenResponseError 403", "ForbiddenResponseError 403", "PermissionDeniedError 403", "PermissionDeniedError 403", "APICallError 403"]),
    ("404", "404-noendpoint", False, ["NotFoundResponseError 404", "NotFoundResponseError 404", "NotFoundError 404", "NotFoundError 404", "APICallError 404"]),
]

# What the other methods of each client are to give. None is whatever the simulator's catalogue says.
FORBIDDEN = {"threw": "ForbiddenResponseError", "status": 403}
ENDPOINTS = {
    "model": MODEL, "endpoints": 2, "zdr": True, "providers": 12, "key": 100, "credits": 100, "noCredits": FORBIDDEN, "activity": True,
    "generation": "u-1", "embeddings": [256, 256], "embeddingModels": 20, "images": "iVBORw0KGgo", "imageModels": 24, "rerank": [1, 0],
    "benchmarks": 11, "rankings": 51, "apps": 8, "tasks": 4,
}
MORE = {
    "@openrouter/sdk": {
        **ENDPOINTS, "tools": ["tool_calls", '{"at":0}'], "toolStream": '{"at":0}', "reasoning": [True, "reasoning.text", True],
        "encrypted": "reasoning.encrypted", "schema": '{"n":3}', "search": 1, "noKey": {"threw": "UnauthorizedResponseError", "status": 401},
    },
    "openrouter (Python)": ENDPOINTS,
    "openai": {
        "models": True, "embeddings": 256, "floats": 256, "noKey": {"threw": "NotFoundError", "status": 404},
        "unknownKey": {"threw": "AuthenticationError", "status": 401},
    },
    "openai (Python)": {"models": True, "embeddings": 256, "floats": 256},
    "ai": {"embedding": 256, "reasoning": True},
}


class Simulator:
    """`openrouter-sim`, which lies beside the gateway's binary."""

    def __init__(self, waystation, folder):
        program, self.port = Path(waystation).with_name("openrouter-sim"), lane.free_port()
        command = [program, "--port", self.port, "--latency", 0, "--token", TOKEN]
        self.base = f"http://127.0.0.1:{self.port}/api/v1"
        self.process = lane.Process(command, folder / "openrouter-sim.log")
        self.process.wait_until(lambda: lane.listening(self.port), "openrouter-sim")

    def request(self, path, body=None, headers=None):
        """Status and body of an answer."""
        data = None if body is None else json.dumps(body).encode()
        url = self.base + path if path[1] != "_" else self.base.replace("/api/v1", path)
        headers = {"Authorization": f"Bearer {KEY}", "x-sim-token": TOKEN, "Content-Type": "application/json", **(headers or {})}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as no:
            return no.code, no.read().decode()

    def json(self, path, body=None, headers=None):
        return json.loads(self.request(path, body, headers)[1])

    def journal(self, since=0):
        return self.json(f"/__sim/journal?since={since}")["entries"]


def verdict(seen, requests, fault):
    """One case's outcome in a few words."""
    tries = f" in {requests}" if requests > 1 else ""
    if "threw" in seen:
        status = f" {seen['status']}" if seen["status"] else ""
        return f"{seen['threw']}{status}{tries}"
    finish, error = seen["finish"], seen.get("error")
    if error:
        goes_on = finish != "error" and seen["usage"]
        named = f"error {error}" if isinstance(error, int) else "error"
        return f"{named}, goes on" if goes_on else f"{named}, finish {finish}"
    if not finish:
        return SILENT if seen["text"] else "no choices"
    if finish != "stop":
        return f"finish {finish}"
    whole = f"[{MODEL}] turn 1: " in seen["text"] and "(#" in seen["text"]
    if not whole:
        return f"other text: {seen['text']}"
    return OK + ("" if seen["usage"] or fault != "no-usage" else " without usage") + tries


def commands(tools):
    scripts = lane.placed(HERE, tools.npm)
    python = lane.python_tools(HERE) / "python"
    node = {name: [tools.node, scripts / script] for name, script in (("@openrouter/sdk", "sdk.mjs"), ("openai", "openai.mjs"), ("ai", "ai.mjs"))}
    python = {"openrouter (Python)": [python, HERE / "sdk.py"], "openai (Python)": [python, HERE / "openai_client.py"]}
    return {**node, **python}


def piped(command, what):
    """What a script makes of a JSON text."""
    done = subprocess.run([str(part) for part in command], input=json.dumps(what), capture_output=True, text=True, timeout=SECONDS)
    if done.returncode != 0:
        raise ValueError(f"{command[-1]} ended with {done.returncode}: {done.stderr[-1500:]}")
    return json.loads(done.stdout)


def check_client(tally, simulator, name, command, column):
    """One client, in all cases of the table, and at all endpoints."""
    cases = [
        {"name": case, "text": f"{name}: {case} [[sim:{fault}]]" if fault else f"{name}: {case}", "stream": stream, "model": MODEL,
         # Of these it is the client's own tries that count.
         "patient": fault in ("429 after=1", "502 times=1", "429-daily")}
        for case, fault, stream, _ in TABLE
    ]
    before = len(simulator.journal())
    told = piped(command, {"base": simulator.base, "key": KEY, "cases": cases})
    journal = simulator.journal()[before:]
    for (case, fault, _, wanted), asked in zip(TABLE, cases, strict=True):
        text = json.dumps(asked["text"])[1:-1]
        requests = sum(text in json.dumps(entry["body"]) for entry in journal)
        tally.equal(f"{name}: {case}", verdict(told["seen"][case], requests, fault), wanted[column])
    catalogue = {"models": "/models/count?output_modalities=all", "count": "/models/count?output_modalities=all", "user": "/models/count"}
    for what, seen in told["more"].items():
        wanted = MORE[name].get(what)
        if wanted is None:
            wanted = simulator.json(catalogue[what])["data"]["count"]
        tally.equal(f"{name}: {what}", seen, wanted)


def payloads(simulator):
    """Everything that the simulator sends, each with the name of the schema that it should follow."""
    ask = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "integer"}}, "required": ["at"]}}}
    picture = {"role": "user", "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]}
    chats = {
        "plain": {}, "tools": {"tools": [tool], "tool_choice": "required"}, "reasoning": {"reasoning": {"effort": "high"}}, "encrypted": {"model": "sim/reasoning-encrypted"},
        "search": {"tools": [{"type": "openrouter:web_search"}]}, "picture": {"messages": [picture]}, "capped": {"max_completion_tokens": 2}, "free": {"model": "acme/atlas-8b:free"},
        **{fault: {"messages": [{"role": "user", "content": f"[[sim:{fault}]]"}]} for fault in ("empty", "empty-reasoning", "null-content", "refusal", "unknown-fields", "midstream", "tool-garbage")},
    }
    metadata = {"X-OpenRouter-Metadata": "enabled"}
    for name, more in chats.items():
        yield f"answer, {name}", "ChatResult", simulator.json("/chat/completions", {**ask, **more}, metadata)
        status, text = simulator.request("/chat/completions", {**ask, **more, "stream": True}, metadata)
        for number, line in enumerate(line for line in text.split("\n") if line.startswith("data: {")):
            yield f"event {number}, {name}", "ChatStreamChunk", json.loads(line[6:])
    gets = {
        "/models?output_modalities=all": "ModelsListResponse", f"/model/{MODEL}": "ModelResponse", "/models/count": "ModelsCountResponse", "/key": "GetCurrentKeyResponse",
        f"/models/{MODEL}/endpoints": "ListEndpointsResponse", "/endpoints/zdr": "ListEndpointsZdrResponse", "/providers": "ListProvidersResponse",
        "/images/models": "ImageModelsListResponse", "/benchmarks": "UnifiedBenchmarksResponse", "/datasets/rankings-daily": "RankingsDailyResponse",
        "/datasets/app-rankings": "AppRankingsResponse", "/classifications/task": "TaskClassificationResponse",
    }
    for path, schema in gets.items():
        yield path, schema, simulator.json(path)
    manager = {"Authorization": "Bearer sk-or-v1-sim-mgmt"}
    yield "/credits", "GetCreditsResponse", simulator.json("/credits", None, manager)
    yield "/activity", "ActivityResponse", simulator.json("/activity", None, manager)
    made = simulator.json("/chat/completions", ask)
    yield "/generation", "GenerationResponse", simulator.json(f"/generation?id={made['id']}")
    yield "/embeddings", "CreateEmbeddingsResponseBody", simulator.json("/embeddings", {"model": "acme/embed-small", "input": "a"})
    yield "/images", "ImageGenerationResponse", simulator.json("/images", {"model": "acme/atlas-image", "prompt": "a"})
    yield "/rerank", "CreateRerankResponseBody", simulator.json("/rerank", {"model": "acme/rerank-1", "query": "a", "documents": ["a"]})


def check_schemas(tally, simulator, tools):
    """What the simulator sends, and what it was sent, against the schemas of both SDKs."""
    every = list(payloads(simulator))
    tally.check("there are 100 payloads to hold against schemas", len(every) >= 100, len(every))
    what = [{"schema": schema, "value": value} for _, schema, value in every]
    readers = {"zod": [tools.node, tools.npm / "openrouter" / "schemas.mjs"], "pydantic": [lane.python_tools(HERE) / "python", HERE / "schemas.py"]}
    for reader, command in readers.items():
        for (name, schema, _), why in zip(every, piped(command, what), strict=True):
            tally.check(f"{name} is a {schema} to {reader}", why is None, why)
    sent = [entry for entry in simulator.journal() if entry["path"].endswith("/chat/completions")]
    wrong = piped(readers["pydantic"], [{"schema": "ChatRequest", "value": entry["body"]} for entry in sent])
    found = [f"{entry['headers'].get('user-agent')}: {why}" for entry, why in zip(sent, wrong, strict=True) if why]
    tally.check(f"all {len(sent)} chats that clients sent are a ChatRequest", len(sent) > 150 and not found, found[:1])


def check_gateway(tally, waystation, simulator, tools, folder):
    """The gateway's own requests, and whoever makes it send them."""
    reader = [lane.python_tools(HERE) / "python", HERE / "schemas.py"]

    def validate(bodies):
        return piped(reader, [{"schema": "ChatRequest", "value": body} for body in bodies])

    chats.check(tally, waystation, tools, simulator, folder, validate)


def check(tally, waystation, tools, folder, only=""):
    folder.mkdir()
    simulator = Simulator(waystation, folder)
    try:
        every = commands(tools)
        for column, name in enumerate(CLIENTS):
            if only in name:
                lane.guarded(tally, check_client, simulator, name, every[name], column)
        lane.guarded(tally, check_schemas, simulator, tools)
        lane.guarded(tally, check_gateway, waystation, simulator, tools, folder / "chats")
    finally:
        simulator.process.stop()
