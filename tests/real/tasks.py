"""Tasks: calls that go on without their clients, between clients and servers of both revisions of tasks, and of none.

The servers are tasking/v1.mjs (2025-11-25, made with the SDK's experimental tasks), tests/conformance/tasks-target.mjs
(2026-07-28, by hand, since no SDK has a server of it), both of them also without tasks, and server-everything. All have
the same tools. The clients are those of clients/ whose name begins with `tasking`. A server notes down which jobs began,
ended and were cancelled, so that a cancelled call can be asked after where it ran.
"""

import contextlib
import itertools
import json
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import lane
import plans
from lane import LEGACY, MODERN, guarded
from matrix import JOBS, TASKERS, TASKS
from servers import SECONDS

HERE = Path(__file__).resolve().parent
EXTENSION = "io.modelcontextprotocol/tasks"
REVISIONS = {"legacy": LEGACY[-1], "modern": MODERN}
TOOLS = {
    "at-once": "greet", "soon": "slow_compute", "late": "slow_compute", "fails": "failing_job", "crashes": "protocol_error_job",
    "asks": "confirm_delete", "asks-twice": "multi_input", "asks-first": "test_tool_with_task", "declined": "confirm_delete",
    "cancelled": "slow_compute",
}
ASKING = {"asks", "asks-twice", "asks-first", "declined"}
# After this long a call becomes a task for a client that declares tasks.
TASK_AFTER = 1
# What is not to be had, and why: {(client, job, backend): reason}; and by which words each refusal is known.
WITHOUT = f"{MODERN} without tasks"
INSISTS = "error -32021: the backend insists on a task, and the client declares that it takes none"
REFUSED = {(WITHOUT, job, "v2-http"): INSISTS for job in ("fails", "crashes", "asks-first")}
WORDS = {INSISTS: "this needs tasks"}
# ext-tasks at 2025-11-25 asks for a task's state until the task is done, and for its result only then. What a task asks is
# said in answer to that last request (2025-11-25, "Tasks", "Input Required Status"), so with no server is it ever asked.
NEVER_ASKED = "ext-tasks 0.2"


# ---- Servers ---------------------------------------------------------------------------------------------------


class Workers:
    """The servers, as backends, and what each of them notes down."""

    def __init__(self, tools, folder):
        self.node, self.folder, self.running = tools.node, folder, []
        lane.placed(HERE / "tasking", tools.npm)
        v1, v2 = tools.npm / "tasking" / "v1.mjs", HERE.parent / "conformance" / "tasks-target.mjs"
        everything = tools.package("server-everything") / "dist" / "index.js"
        self.settings = {
            "v1-stdio": self.child(v1, "stdio", *self.log("v1-stdio")),
            "v1-http": self.listen("v1-http", v1, "streamable"),
            "v1-shared": self.listen("v1-shared", v1, "streamable", "--shared"),
            "v2-http": self.listen("v2-http", v2),
            "plain-legacy": self.child(v1, "stdio", "--plain", *self.log("plain-legacy")),
            # Where calls are cancelled: as long as one has no answer, it would be open who asks there next.
            "plain-legacy-2": self.child(v1, "stdio", "--plain", *self.log("plain-legacy")),
            "plain-modern": self.listen("plain-modern", v2, "--plain"),
            "everything": self.child(everything, "stdio"),
        }

    def log(self, name):
        return ["--log", self.folder / f"{name}.jsonl"]

    def child(self, script, *arguments):
        return {"command": self.node, "args": [script, *arguments]}

    def listen(self, name, script, *arguments):
        port = lane.free_port()
        command = [self.node, script, *arguments, "--port", port, *self.log(name)]
        process = lane.Process(command, self.folder / f"{name}.log")
        self.running.append(process.wait_until(lambda: lane.listening(port), f"the server {name}"))
        return {"url": f"http://127.0.0.1:{port}/mcp"}

    def routes(self):
        tables = "".join(lane.backend(name, **settings) for name, settings in self.settings.items())
        return f'[deadline]\ntask = "{TASK_AFTER}s"\n\n{tables}'

    def noted(self, name, event, label, seconds=5):
        """Whether a server has noted this, at the latest after that long."""
        file, end = self.folder / f"{name}.jsonl", time.monotonic() + seconds
        while True:
            lines = file.read_text().splitlines() if file.exists() else []
            if {"event": event, "label": label} in map(json.loads, lines):
                return True
            if time.monotonic() > end:
                return False
            time.sleep(0.05)

    def has_dropped(self, job):
        """Whether a cancelled job was so at the backend, too, or never got there."""
        return self.noted(job.backend, "cancelled", job.label()) or not self.noted(job.backend, "began", job.label(), 0)

    def stop(self):
        for process in self.running:
            process.stop()


# ---- Clients and what they are to see --------------------------------------------------------------------------


class Job(NamedTuple):
    """A call of one kind at one backend, with a number of its own."""

    backend: str
    kind: str
    tag: int

    def arguments(self):
        label = self.label()
        return {
            "greet": {"name": label},
            "slow_compute": {"label": label, "seconds": {"soon": 0.3, "late": 2 * TASK_AFTER, "cancelled": 15}.get(self.kind)},
            "confirm_delete": {"filename": label},
            "multi_input": {"tag": self.tag},
            "test_tool_with_task": {"tag": self.tag},
        }.get(TOOLS[self.kind], {"label": label})

    def label(self):
        return f"#{self.tag}"

    def call(self):
        apart = "-2" if (self.backend, self.kind) == ("plain-legacy", "cancelled") else ""
        return {"name": f"{self.backend}{apart}__{TOOLS[self.kind]}", "arguments": self.arguments(), "cancel": self.kind == "cancelled"}

    def text(self, secret):
        """What the tool has to return, where it knows no better how to say that it failed."""
        label, number = self.label(), secret + self.tag
        return {
            "at-once": f"Hello, {label}!", "fails": f"failed {label}", "crashes": f"crashed {label}",
            "asks": json.dumps({"deleted": label, "number": number}, separators=(",", ":")),
            "declined": json.dumps({"kept": label}, separators=(",", ":")),
            "asks-twice": json.dumps([number, secret + 10 * self.tag], separators=(",", ":")), "asks-first": f"accept: {number}",
        }.get(self.kind, f"computed {label}")

    def __str__(self):
        return f"{self.backend}: a call that {JOBS[self.kind]}"


class Client:
    tags = itertools.count(1)

    def __init__(self, name, program, era, tasks, transport="Streamable HTTP", **where):
        self.name, self.program, self.era, self.tasks, self.where = name, program, era, tasks, where
        self.kind = f"{REVISIONS[era]} {'with' if tasks else 'without'} tasks"
        self.label = f"{name} ({self.kind}, {transport})"

    def jobs(self):
        """In turns, so that each kind meets each backend while the others are at work."""
        kinds = [kind for kind in JOBS if not (self.is_never_asked() and kind in ASKING)]
        return [Job(backend, kind, next(Client.tags)) for kind in kinds for backend in TASKERS]

    def is_never_asked(self):
        return self.tasks and self.era == "legacy" and self.name == NEVER_ASKED

    def run(self, folder, jobs):
        secret = random.randrange(10**9, 10**12)
        plan = {"era": self.era, **self.where, "tasks": self.tasks, "calls": [job.call() for job in jobs], "together": 6}
        plan |= {"declares": True, "secret": secret, "meet": []}
        plan["declined"] = [job.tag for job in jobs if isinstance(job, Job) and job.kind == "declined"]
        file = folder / f"tasks-{next(Client.tags)}.json"
        file.write_text(json.dumps(plan))
        report = self.program(file, plan)
        if not isinstance(report, dict):
            report = {"revision": report, "calls": [{"error": report}] * len(jobs)}
        return secret, report

    def is_task(self, job):
        """Whether this client has to be given a task for that."""
        if not self.tasks:
            return False
        if self.era == "legacy":
            return True
        if job.backend.startswith("plain"):
            return job.kind in ("late", "cancelled")
        return job.kind != "at-once"


def fault(client, job, secret, call):
    """What is wrong with how a call ended, or nothing."""
    if call.get("hung") or ("task" in call) != client.is_task(job):
        return f"{'no task' if 'task' not in call else 'a task'}: {json.dumps(call)}"
    status = {"fails": "failed", "crashes": "failed", "cancelled": "cancelled"}.get(job.kind, "completed")
    # In the extension only an error of JSON-RPC is a failure, and without tasks the SDK of version 1 makes none of an exception.
    is_error = job.kind == "crashes" and job.backend != "plain-legacy"
    if client.era == "modern" and status == "failed" and not is_error:
        status = "completed"
    if "task" in call and call.get("status") != status:
        return f"not {status}: {json.dumps(call)}"
    if call.get("listed") is False:
        return f"not listed: {json.dumps(call)}"
    if job.kind == "cancelled":
        return "" if call.get("cancelled") else json.dumps(call)
    said, text = " ".join(str(call.get(name, "")) for name in ("text", "error", "after")), job.text(secret)
    if client.is_never_asked() and status == "failed":
        return ""  # It stops at the status, and nobody hears why.
    if status == "failed" and "task" in call or job.kind == "crashes":
        return "" if text in said else json.dumps(call)
    right = call.get("text") == text and call.get("isError") is (job.kind == "fails")
    return "" if right else json.dumps(call)


def clients(tools, gateway, stdio):
    sdk = plans.program(tools.node, tools.npm / "tasking-v1.mjs")
    typescript = plans.program(tools.node, tools.npm / "tasking.mjs")
    python = plans.program(tools.python / "python", HERE / "clients" / "tasking.py")
    http, pipe = {"url": f"{gateway.base}/mcp"}, {"command": stdio, "transport": "stdio"}
    yield Client("typescript 1.32", sdk, "legacy", True, **http)
    yield Client("typescript 1.32", sdk, "legacy", True, **pipe)
    yield Client("ext-tasks 0.2", typescript, "legacy", True, **http)
    yield Client("typescript 1.32", sdk, "legacy", False, **http)
    yield Client("ext-tasks 0.2", typescript, "modern", True, **http)
    for era in REVISIONS:
        yield Client("typescript 2.4", typescript, era, False, **http)
        yield Client("python", python, era, False, **http)
    yield Client("python", python, "modern", False, **pipe)


# ---- Checks ----------------------------------------------------------------------------------------------------


def check_matrix(tally, every, workers, folder):
    """Every client has every kind of call done by every backend. The answer is what docs/protocol.md should say."""
    cells = {}
    for client, (jobs, secret, report) in reports(every, lambda client: one_of_each(client, folder)):
        tally.equal(f"{client.label} speaks {REVISIONS[client.era]}", report["revision"], REVISIONS[client.era])
        for job, call in zip(jobs, report["calls"], strict=True):
            place, why = (client.kind, job.kind, job.backend), fault(client, job, secret, call)
            if not why and job.kind == "cancelled" and not workers.has_dropped(job):
                why = "the backend goes on with it"
            known = REFUSED.get(place)
            if known:
                tally.check(f"{client.label} is refused by {job}", WORDS[known] in why, why or "it was not")
            else:
                tally.check(f"{client.label} and {job}", not why, why)
            # One client that does not get through is enough.
            if why or place not in cells:
                cells[place] = "works" if not why else known or re.sub(r"[0-9a-f]{8,}|\d{3,}", "…", lane.shorten(why, 200))
    return cells


def one_of_each(client, folder):
    jobs = client.jobs()
    return (jobs, *client.run(folder, jobs))


class Research(NamedTuple):
    """The one tool of server-everything that requires a task."""

    ambiguous: bool

    def call(self):
        arguments = {"topic": "inns #1", "ambiguous": self.ambiguous}
        return {"name": "everything__simulate-research-query", "arguments": arguments, "cancel": False}


def check_everything(tally, every, folder):
    def run(client):
        return client.run(folder, [Research(False)] if client.is_never_asked() else [Research(False), Research(True)])

    for client, (_, report) in reports(every, run):
        for call, what in zip(report["calls"], ("does research", "asks what is meant"), strict=False):
            wanted = "# Research Report: inns #1" + (" (User accepted without selection)" if what.startswith("asks") else "")
            good = call.get("text", "").startswith(wanted) and ("task" in call) == client.tasks
            tally.check(f"{client.label}: server-everything {what}", good, json.dumps(call))


class Raw:
    """A client that is asked nothing it does not want to be, and sees all that is said."""

    def __init__(self, gateway, era, path="/mcp"):
        capabilities = {"elicitation": {"form": {}}} | ({"extensions": {EXTENSION: {}}} if era == "modern" else {})
        self.era, self.client = era, lane.Client(f"{gateway.base}{path}", REVISIONS[era], capabilities)

    def begin(self, tool, **arguments):
        params = {"name": tool, "arguments": arguments} | ({"task": {}} if self.era == "legacy" else {})
        result = self.client.request("tools/call", params)
        return result["task"]["taskId"] if self.era == "legacy" else result["taskId"]

    def ask(self, method, task, **params):
        return self.client.request(method, {"taskId": task, **params})

    def until(self, task, *statuses, seconds=20):
        end = time.monotonic() + seconds
        while True:
            state = self.ask("tasks/get", task)
            if state["status"] in statuses or time.monotonic() > end:
                return state
            time.sleep(0.1)

    def end(self, task):
        """(status, what the tool said or why there is nothing)."""
        state = self.until(task, "completed", "failed", "cancelled")
        if self.era == "modern":
            return state["status"], lane.text_of(state["result"]) if "result" in state else json.dumps(state.get("error"))
        try:
            return state["status"], lane.text_of(self.ask("tasks/result", task))
        except lane.Refused as why:
            return state["status"], str(why)

    def refusal(self, method, task, **params):
        try:
            return f"not refused: {self.ask(method, task, **params)}"
        except lane.Refused as why:
            return str(why).replace(task, "…")


def check_cancelled_while_asking(tally, gateway, workers):
    """More than there are connections to a process: one that waits for an answer must not hold it when the task is gone."""
    client = Raw(gateway, "legacy")
    for backend in ("v1-stdio", "plain-legacy", "v2-http"):
        labels = [f"cancelled #{backend} {number}" for number in range(9)]
        for label in labels:
            task = client.begin(f"{backend}__confirm_delete", filename=label)
            state = client.until(task, "input_required")
            tally.equal(f"{backend}: a task asks before it is cancelled", state["status"], "input_required")
            tally.equal(f"{backend}: it is cancelled", client.ask("tasks/cancel", task)["status"], "cancelled")
            again = client.refusal("tasks/cancel", task)
            tally.check(f"{backend}: it cannot be cancelled again", "-32602" in again, again)
        heard = [workers.noted(backend, "cancelled", label) for label in labels]
        tally.check(f"{backend} hears that all were cancelled", all(heard), heard)
        began = time.monotonic()
        end = client.end(client.begin(f"{backend}__slow_compute", seconds=0.1, label="after"))
        tally.equal(f"{backend} goes on ({time.monotonic() - began:.1f} s)", end, ("completed", "computed after"))


def check_subscription(tally, gateway):
    """Who subscribes to a task hears how it ends without asking again."""
    client = Raw(gateway, "modern")
    for backend in ("v1-http", "v2-http", "plain-legacy", "plain-modern"):
        task = client.begin(f"{backend}__slow_compute", seconds=2.5, label="heard")
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": {"name": "lane", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": client.client.capabilities,
        }
        params = {"notifications": {"taskIds": [task]}, "_meta": meta}
        with client.client.post({"jsonrpc": "2.0", "id": 9000, "method": "subscriptions/listen", "params": params}) as stream:
            heard = lane.messages(stream)
            honoured = next(heard)["params"]["notifications"].get("taskIds")
            tally.equal(f"{backend}: a subscription to its task is honoured", honoured, [task])
            told = (message["params"] for message in heard if message.get("method") == "notifications/tasks")
            end = next(params for params in told if params["status"] == "completed")
        seen = (end["taskId"], lane.text_of(end["result"]))
        tally.equal(f"{backend}: the subscriber hears the result", seen, (task, "computed heard"))


def check_names(tally, gateway):
    """A task is known where it was made, and anywhere else answered like one that never was."""
    for era in REVISIONS:
        here, there = Raw(gateway, era), Raw(gateway, era, "/mcp/v2-http")
        task = here.begin("v2-http__slow_compute", seconds=5, label="private")
        for method in ("tasks/get", "tasks/cancel", "tasks/update" if era == "modern" else "tasks/result"):
            params = {"inputResponses": {}} if method == "tasks/update" else {}
            elsewhere, nowhere = there.refusal(method, task, **params), here.refusal(method, "f" * len(task), **params)
            tally.check(f"{method} at {REVISIONS[era]} refuses a task of elsewhere", "-32602" in elsewhere, elsewhere)
            tally.equal(f"{method} at {REVISIONS[era]} refuses it as one that never was", elsewhere, nowhere)
        if era == "legacy":
            names = {task["taskId"] for task in there.client.everything("tasks/list", "tasks")}
            tally.check("tasks/list elsewhere does not show it", task not in names, names)
        tally.equal(f"the task at {REVISIONS[era]} has not heard of that", here.ask("tasks/get", task)["status"], "working")
        here.ask("tasks/cancel", task)


def check_killed(tally, gateway):
    """What becomes of tasks when the gateway is killed under them, and started again on the same database."""
    lost, going = "it may have run", "computed kept"
    wanted, tasks, all_done = {}, {}, []
    raws = {era: Raw(gateway, era) for era in REVISIONS}
    for era, raw in raws.items():
        for backend in ("v1-shared", "v2-http"):
            wanted[era, backend, "goes on"] = ("completed", going)
        wanted[era, "v1-http", "has lost its session, and with it the task"] = ("failed", "has lost its task")
        for backend in ("plain-legacy", "plain-modern", "v1-stdio"):
            wanted[era, backend, "has ended with the gateway"] = ("failed", "")
        for backend in ("plain-legacy", "plain-modern"):
            wanted[era, backend, "has ended with the gateway"] = ("failed", lost)
        for _, backend, what in [place for place in wanted if place[0] == era]:
            tasks[era, backend, what] = raw.begin(f"{backend}__slow_compute", seconds=6, label="kept")
        for backend in ("v1-shared", "v2-http"):
            done = raw.begin(f"{backend}__failing_job", label=f"{era} {backend}")
            all_done.append((era, backend, done, raw.end(done)))
        asking = raw.begin("v2-http__confirm_delete", filename=f"{era} #1")
        raw.until(asking, "input_required")
        tasks[era, "v2-http", "still asks"] = asking
    gateway.kill()
    gateway.start()
    raws = {era: Raw(gateway, era) for era in REVISIONS}
    for era, backend, done, end in all_done:
        what = f"after a kill -9, at {REVISIONS[era]}: a task of {backend} that was done"
        tally.equal(f"{what} is as it was", raws[era].end(done), end)
        tally.check(f"{what} says how it ended", f"failed {era} {backend}" in end[1], end)
    for place, task in tasks.items():
        era, backend, what = place
        label = f"after a kill -9, at {REVISIONS[era]}: a task of {backend} {what}"
        if what == "still asks":
            state = raws[era].until(task, "input_required")
            tally.equal(label, state["status"], "input_required")
            if era == "modern":
                key = next(iter(state.get("inputRequests", {})), "none")
                raws[era].ask("tasks/update", task, inputResponses={key: {"action": "accept", "content": {"number": 7}}})
                end = ("completed", f'{{"deleted":"{era} #1","number":7}}')
                tally.equal(f"{label}, and takes the answer", raws[era].end(task), end)
            continue
        status, text = wanted[place]
        end = raws[era].end(task)
        tally.check(label, end[0] == status and text in end[1], end)


def check_listed(tally, gateway):
    """Nothing is called before it is there; and at 2025-11-25 any tool may be a task, and none must be."""
    wanted = {f"{backend}__{tool}" for backend in TASKERS for tool in TOOLS.values()} | {Research(False).call()["name"]}
    began, seen = time.monotonic(), {}
    while not wanted <= set(seen) and time.monotonic() - began < SECONDS:
        listed = lane.Client(f"{gateway.base}/mcp", LEGACY[-1]).everything("tools/list", "tools")
        seen = {tool["name"]: tool.get("execution", {}).get("taskSupport") for tool in listed}
        time.sleep(0.2)
    tally.equal(f"all {len(wanted)} tools that work are listed", set(seen) & wanted, wanted)
    others = {name: support for name, support in seen.items() if support != "optional"}
    tally.check("any of them may be called as a task, and none must be", not others, others)


def reports(every, run):
    # Two at a time: as many as there are cores on the smallest machine that runs this.
    with ThreadPoolExecutor(2) as pool:
        yield from zip(every, pool.map(run, every), strict=True)


def check(tally, binary, tools, folder, only):
    """All of it, with a gateway of its own."""
    folder.mkdir()
    workers = Workers(tools, folder)
    with contextlib.ExitStack() as ending:
        ending.callback(workers.stop)
        gateway = lane.Gateway(binary, folder, workers.routes())
        ending.callback(lambda: tally.check("the gateway with tasks ends when asked", gateway.stop(), "it had to be killed"))
        config = folder / "stdio.toml"
        config.write_text(f"[store]\npath = {lane.toml(str(folder / 'stdio.db'))}\n\n{workers.routes()}")
        check_listed(tally, gateway)
        every = list(clients(tools, gateway, [binary, "stdio", "--config", str(config)]))
        chosen = [client for client in every if only in client.label]
        cells = check_matrix(tally, chosen, workers, folder)
        check_everything(tally, chosen, folder)
        guarded(tally, check_names, gateway)
        guarded(tally, check_subscription, gateway)
        guarded(tally, check_cancelled_while_asking, gateway, workers)
        guarded(tally, check_killed, gateway)
        if len(chosen) == len(every):
            TASKS.check(tally, cells)
