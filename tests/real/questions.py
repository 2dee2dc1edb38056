"""What servers ask of clients in the middle of a call: every kind of question, between clients and servers of both eras
over every transport that they have.

The servers are those of asking/, the clients those of clients/ whose name begins with `answering`. A client answers
with a number that nobody else could know, and the tool that asked has to return exactly that one.
"""

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
from matrix import BACKENDS, KINDS, QUESTIONS
from servers import SECONDS, Stdio

HERE = Path(__file__).resolve().parent
REVISIONS = {"legacy": LEGACY[-1], "modern": MODERN}
# What is not passed on, and why: {(client, kind, backend): words that are in the refusal}.
REFUSED = {}
# Calls that each of two clients makes on each backend, and how many of all it makes at a time.
CALLS, TOGETHER = 25, 25


class Askers:
    """The servers that ask, as backends."""

    def __init__(self, tools, folder):
        self.node, self.running = tools.node, []
        # The legacy ones are made of what is here, the modern ones of what the conformance target is made of.
        homes = {"legacy": tools.npm, "modern": lane.npm_tools(HERE.parent / "conformance")}
        self.scripts = {era: home / "asking" / f"{era}.mjs" for era, home in homes.items()}
        for home in homes.values():
            lane.placed(HERE / "asking", home)
        http = {
            "legacy-http": self.listen("legacy", "streamable", folder),
            "legacy-sse": self.listen("legacy", "sse", folder),
            "modern-http": self.listen("modern", "streamable", folder),
        }
        self.settings = {
            "legacy-stdio": {"command": self.node, "args": [self.scripts["legacy"], "stdio"]},
            "legacy-http": {"url": f"{http['legacy-http']}/mcp"},
            "legacy-sse": {"url": f"{http['legacy-sse']}/sse", "transport": "sse"},
            "modern-stdio": {"command": self.node, "args": [self.scripts["modern"], "stdio"]},
            "modern-http": {"url": f"{http['modern-http']}/mcp"},
        }

    def listen(self, era, transport, folder):
        port, log = lane.free_port(), folder / f"asking-{era}-{transport}.log"
        process = lane.Process([self.node, self.scripts[era], transport, port], log)
        self.running.append(process.wait_until(lambda: lane.listening(port), f"the {era} server over {transport}"))
        return f"http://127.0.0.1:{port}"

    def routes(self):
        return "".join(lane.backend(name, **self.settings[name]) for name in BACKENDS)

    def stop(self):
        for process in self.running:
            process.stop()


class Ask(NamedTuple):
    """A call of a tool that asks."""

    backend: str
    kind: str
    decline: bool = False
    # The server does not look first whether the client said it can be asked this.
    anyway: bool = False
    # It does not say to which call the question belongs.
    apart: bool = False

    def call(self, tag):
        return {"name": f"{self.backend}__ask_{self.kind}", "arguments": {"tag": tag, "anyway": self.anyway, "apart": self.apart}}

    def answer(self, secret, tag):
        """(action, number) as the tool has to return them."""
        return ("decline", None) if self.decline else ("accept", secret if self.kind == "roots" else secret + tag)

    def __str__(self):
        ways = ("declined", "without looking first", "apart from the call")
        how = [way for way, is_so in zip(ways, self[2:], strict=True) if is_so]
        return f"{self.backend}: {', '.join([KINDS[self.kind], *how])}"


class Client:
    """A client that answers, in one era and over one transport."""

    # Questions of different calls must not look alike, whoever made these.
    tags = itertools.count(1)

    def __init__(self, name, program, era, transport, **where):
        self.program, self.era, self.transport, self.where = program, era, transport, where
        self.kind = f"{REVISIONS[era]}, {transport}"
        self.label = f"{name} ({self.kind})"

    def run(self, folder, asks, declares=True, together=1, meet=()):
        """Makes calls that are asked something; gives what each should and did say, and what the client was asked."""
        secret = random.randrange(10**9, 10**12)
        tags = list(itertools.islice(Client.tags, len(asks)))
        calls = [ask.call(tag) for tag, ask in zip(tags, asks, strict=True)]
        declined = [tag for tag, ask in zip(tags, asks, strict=True) if ask.decline]
        plan = {"era": self.era, **self.where, "declares": declares, "secret": secret, "together": together}
        plan |= {"calls": calls, "declined": declined, "meet": [str(file) for file in meet]}
        file = folder / f"questions-{tags[0]}.json"
        file.write_text(json.dumps(plan))
        report = self.program(file, plan)
        if not isinstance(report, dict):
            report = {"revision": report, "calls": [{"error": report}] * len(calls), "tags": []}
        wanted = [ask.answer(secret, tag) for tag, ask in zip(tags, asks, strict=True)]
        return Report(report, wanted, tags, asks)


class Report:
    """What came of the calls of one client."""

    def __init__(self, report, wanted, tags, asks):
        self.revision, self.asked = report["revision"], sorted(report["tags"])
        # One of (what was asked, how it ended, whether that is right) for each call.
        ends = zip(asks, report["calls"], wanted, strict=True)
        self.calls = [(ask, call, said(call) == answer) for ask, call, answer in ends]
        # A question about roots has no words, and so no tag.
        self.to_be_asked = [tag for tag, ask in zip(tags, asks, strict=True) if ask.kind != "roots"]


def said(call):
    """(action, number) of a call that was answered as it should be."""
    try:
        answer = json.loads(call["text"])
        return None if call["isError"] else (answer["action"], answer["number"])
    except (KeyError, TypeError, ValueError):
        return None


def refusal(call):
    """The words of a refusal, if it is one that says something."""
    words = call.get("error") or (call.get("isError") and call.get("text"))
    return None if call.get("hung") else words or None


def clients(tools, gateway, stdio):
    programs = {
        "typescript 1.32": plans.program(tools.node, tools.npm / "answering-v1.mjs"),
        "typescript 2.4": plans.program(tools.node, tools.npm / "answering.mjs"),
        "python": plans.program(tools.python / "python", HERE / "clients" / "answering.py"),
    }
    places = {
        "Streamable HTTP": {"url": f"{gateway.base}/mcp"},
        "stdio": {"command": stdio},
        "HTTP+SSE": {"sse": f"{gateway.base}/sse"},
    }
    for era, (transport, where) in itertools.product(REVISIONS, places.items()):
        for name, program in programs.items():
            if era == "legacy" or (name != "typescript 1.32" and transport != "HTTP+SSE"):
                yield Client(name, program, era, transport, **where)


def check_matrix(tally, every, folder):
    """Every client is asked everything by everybody, and declines some. The answer is what docs/protocol.md should say."""
    asks = [Ask(backend, kind) for backend in BACKENDS for kind in KINDS]
    asks += [Ask(backend, "form", decline=True) for backend in BACKENDS]
    cells = {}
    for client, report in reports(every, lambda client: client.run(folder, asks)):
        tally.equal(f"{client.label} speaks {REVISIONS[client.era]}", report.revision, REVISIONS[client.era])
        tally.equal(f"{client.label} is asked once for each call, and for no other's", report.asked, report.to_be_asked)
        for ask, call, good in report.calls:
            place, why = (client.kind, ask.kind, ask.backend), refusal(call) or json.dumps(call)
            known = REFUSED.get(place)
            if known:
                tally.check(f"{client.label} is not asked by {ask}", not good and known in why, why)
            else:
                tally.check(f"{client.label} is asked by {ask}", good, why)
            # One client that does not get through is enough.
            if not good or place not in cells:
                cells[place] = "works" if good else known or general(why)
    return cells


def general(why):
    """A refusal without what is different in every run."""
    return re.sub(r"\d{3,}|[0-9a-f]{8,}", "…", lane.shorten(why, 200))


def check_undeclared(tally, every, folder):
    """Who does not say that it can be asked is not asked, and hears why there is no result."""
    asks = [Ask(backend, kind, anyway=anyway) for anyway in (False, True) for backend in BACKENDS for kind in KINDS]
    for client, report in reports(every, lambda client: client.run(folder, asks, declares=False, together=4)):
        for ask, call, _ in report.calls:
            tally.check(f"{client.label} declares nothing and hears why not from {ask}", refusal(call), json.dumps(call))


def check_unplaced(tally, every, folder):
    """A question that does not say to which call it belongs: only one call can have caused it, so it is passed on. Over
    Streamable HTTP it comes on a stream that is no call's, so there the clients have to take turns."""
    asks = [Ask(backend, kind, apart=True) for backend in BACKENDS if backend.startswith("legacy") for kind in KINDS]
    for client in every:
        for ask, call, good in client.run(folder, asks).calls:
            tally.check(f"{client.label} is asked by {ask}", good, json.dumps(call))


def check_seal(tally, gateway):
    """What a modern client brings back serves the very call it was made for, and once. No SDK would bring anything else."""
    client = lane.Client(f"{gateway.base}/mcp", MODERN, {"elicitation": {"form": {}}})
    for backend in BACKENDS:
        first = {"name": f"{backend}__ask_form", "arguments": {"tag": 0}}
        asked = client.request("tools/call", first)
        key, state = next(iter(asked["inputRequests"])), asked["requestState"]
        number, elsewhere = random.randrange(10**9, 10**12), next(other for other in BACKENDS if other != backend)
        answers = {"inputResponses": {key: {"action": "accept", "content": {"number": number}}}}
        right = first | answers | {"requestState": state}
        altered = state[:30] + ("A" if state[30] != "A" else "B") + state[31:]
        others = {
            "with other arguments": right | {"arguments": {"tag": 1}},
            "for another tool": right | {"name": f"{backend}__ask_url"},
            "for another backend": right | {"name": f"{elsewhere}__ask_form"},
            "when it was altered": right | {"requestState": altered},
        }
        for how, params in others.items():
            why = refused(client, params)
            tally.check(f"{backend}: a state is refused {how}", "-32602" in why, why)
        result = client.request("tools/call", right)
        text = json.loads(lane.text_of(result))
        tally.equal(f"{backend}: the state serves once", text, {"action": "accept", "number": number})
        why = refused(client, right)
        tally.check(f"{backend}: a state is refused the second time", "-32602" in why, why)


def refused(client, params):
    try:
        return f"not refused: {client.request('tools/call', params)}"
    except lane.Refused as why:
        return str(why)


def check_refusing(tally, every, folder):
    """To refuse a model is an error in the legacy era, and ends the call with the client's own words."""
    asks = [Ask(backend, "model", decline=True) for backend in BACKENDS]
    for client, report in reports(every, lambda client: client.run(folder, asks)):
        for ask, call, _ in report.calls:
            tally.check(f"{client.label} is heard by {ask}", "not today" in (refusal(call) or ""), json.dumps(call))


def check_apart(tally, pairs, folder):
    """Two clients at the same time, each with numbers of its own: nobody is asked for, or gets, the other's."""
    # In turns, or the client that gets ahead on one backend would be alone on the next.
    asks = [Ask(backend, kind) for kind in itertools.islice(itertools.cycle(KINDS), CALLS) for backend in BACKENDS]
    for number, pair in enumerate(pairs):
        doors = [folder / f"door-{number}-{client}" for client in range(2)]
        ways = [(pair[0], doors), (pair[1], doors[::-1])]
        run = reports(ways, lambda way: way[0].run(folder, asks, together=TOGETHER, meet=way[1]))
        both = [report for _, report in run]
        who = " and ".join(client.label for client in pair)
        crossed = sum(len(set(report.asked) - set(report.to_be_asked)) for report in both)
        tally.equal(f"{who}: nobody is asked for the other", crossed, 0)
        for backend in BACKENDS:
            what = f"{who}, {CALLS} calls each to {backend}"
            mine = [[(call, good) for ask, call, good in report.calls if ask.backend == backend] for report in both]
            bad = [call for calls in mine for call, good in calls if not good]
            tally.equal(f"{what}: 0 answers cross", sum(1 for call in bad if said(call)), 0)
            tally.check(f"{what}: all are answered", not bad, f"{len(bad)} are not; {json.dumps(bad[:3])}")
            spans = [[call["time"] for call, _ in calls if "time" in call] or [[0, 0]] for calls in mine]
            latest = max(min(began for began, _ in span) for span in spans)
            tally.check(f"{what}: at the same time", latest < min(max(end for _, end in span) for span in spans), spans)


def check_listed(tally, *lists):
    """Nothing is called before it is there."""
    wanted, began = {f"{backend}__ask_{kind}" for backend in BACKENDS for kind in KINDS}, time.monotonic()
    for names in lists:
        seen = set()
        while not wanted <= seen and time.monotonic() - began < SECONDS:
            seen = set(names())
            time.sleep(0.1)
        tally.equal(f"all {len(wanted)} tools that ask are listed", seen & wanted, wanted)


def reports(every, run):
    # Two at a time: as many as there are cores on the smallest machine that runs this.
    with ThreadPoolExecutor(2) as pool:
        yield from zip(every, pool.map(run, every), strict=True)


def check(tally, binary, tools, folder, only):
    """All of it, with a gateway of its own."""
    folder.mkdir()
    askers = Askers(tools, folder)
    try:
        gateway = lane.Gateway(binary, folder, askers.routes())
        try:
            config = folder / "stdio.toml"
            config.write_text(f"[store]\npath = {lane.toml(str(folder / 'stdio.db'))}\n\n{askers.routes()}")
            stdio = [binary, "stdio", "--config", str(config)]
            first = Stdio(stdio, log=folder / "stdio.log")
            first.open(LEGACY[-1])
            check_listed(tally, lambda: lane.Client(f"{gateway.base}/mcp", LEGACY[-1]).names("tools"), first.names)
            first.close()
            every = list(clients(tools, gateway, stdio))
            chosen = [client for client in every if only in client.label]
            cells = check_matrix(tally, chosen, folder)
            check_undeclared(tally, chosen, folder)
            one_each = [client for client in chosen if client.label.startswith("typescript 2.4") and "url" in client.where]
            check_unplaced(tally, one_each, folder)
            check_refusing(tally, [client for client in chosen if client.era == "legacy"], folder)
            guarded(tally, check_seal, gateway)
            check_apart(tally, list(pairs(every, only)), folder)
            if len(chosen) == len(every):
                QUESTIONS.check(tally, cells)
        finally:
            children = lane.descendants(gateway.process.child.pid)
            tally.check("the gateway that passes questions ends when asked", gateway.stop(), "it had to be killed")
            left = lane.survivors(children)
            tally.check("none of the servers that ask is left", not left, f"still there: {left}")
    finally:
        askers.stop()


def pairs(every, only):
    """Two of the legacy era, two of the modern, and one of each."""
    chosen = [client for client in every if "url" in client.where and client.label.startswith("typescript 2.4")]
    for pair in itertools.combinations_with_replacement(chosen, 2):
        if any(only in client.label for client in pair):
            yield pair
