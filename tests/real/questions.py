"""What servers ask of clients in the middle of a call: every kind of question, between clients and servers of both eras
over every transport that they have.

The servers are those of asking/, the clients those of clients/ whose name begins with `answering`. A client answers
with a number that nobody else could know, and the tool that asked has to return exactly that one.
"""

import itertools
import json
import random
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lane
import matrix
import plans
from lane import LEGACY, MODERN
from matrix import BACKENDS, KINDS
from servers import SECONDS, Stdio

HERE = Path(__file__).resolve().parent
REVISIONS = {"legacy": LEGACY[-1], "modern": MODERN}
# What is not passed on, and why: {(client, kind, backend): words that are in the refusal}.
REFUSED = {}
# Calls that each of two clients makes on each backend, and how many of them at a time.
CALLS, TOGETHER = 25, 5


class Askers:
    """The servers that ask, as backends."""

    def __init__(self, tools, folder):
        self.node, self.running = tools.node, []
        # The legacy ones are made of what is here, the modern ones of what the conformance target is made of.
        homes = {"legacy": tools.npm, "modern": lane.npm_tools(HERE.parent / "conformance")}
        self.scripts = {era: home / "asking" / f"{era}.mjs" for era, home in homes.items()}
        for home in homes.values():
            shutil.copytree(HERE / "asking", home / "asking", dirs_exist_ok=True)
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


class Client:
    """A client that answers, in one era and over one transport."""

    # Questions of different calls must not look alike, whoever made these.
    tags = itertools.count(1)

    def __init__(self, name, program, era, transport, **where):
        self.program, self.era, self.transport, self.where = program, era, transport, where
        self.kind = f"{REVISIONS[era]}, {transport}"
        self.label = f"{name} ({self.kind})"

    def run(self, folder, wanted, answers="number", together=1, **extra):
        """Makes calls of (backend, kind); gives what each should and did say, and what else is to be known."""
        secret = random.randrange(10**9, 10**12)
        tags = list(itertools.islice(Client.tags, len(wanted)))
        calls = [
            {"name": f"{backend}__ask_{kind}", "arguments": {"tag": tag, **extra}}
            for tag, (backend, kind) in zip(tags, wanted, strict=True)
        ]
        plan = {"era": self.era, **self.where, "answers": answers, "secret": secret, "together": together, "calls": calls}
        file = folder / f"questions-{tags[0]}.json"
        file.write_text(json.dumps(plan))
        report = self.program(file, plan)
        if not isinstance(report, dict):
            report = {"revision": report, "calls": [{"error": report}] * len(calls), "tags": []}
        numbers = [secret + (tag if kind != "roots" else 0) for tag, (_, kind) in zip(tags, wanted, strict=True)]
        asked = [tag for tag, (_, kind) in zip(tags, wanted, strict=True) if kind != "roots"]
        return Report(report, numbers, asked)


class Report:
    def __init__(self, report, numbers, asked):
        self.revision, self.calls, self.numbers = report["revision"], report["calls"], numbers
        self.tags, self.asked = sorted(report["tags"]), sorted(asked)

    def accepted(self):
        """Of each call, whether it brought the number that its client answered."""
        return [said(call) == ("accept", number) for call, number in zip(self.calls, self.numbers, strict=True)]


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
    """Every client is asked everything by everybody. The answer is what the table of docs/protocol.md should say."""
    wanted = list(itertools.product(BACKENDS, KINDS))
    cells = {}
    for client, report in reports(every, lambda client: client.run(folder, wanted)):
        tally.equal(f"{client.label} speaks {REVISIONS[client.era]}", report.revision, REVISIONS[client.era])
        tally.equal(f"{client.label} is asked once for each call, and for no other's", report.tags, report.asked)
        for (backend, kind), call, good in zip(wanted, report.calls, report.accepted(), strict=True):
            place, why = (client.kind, kind, backend), refusal(call) or json.dumps(call)
            known = REFUSED.get(place)
            what = f"{client.label} answers {backend}: {KINDS[kind]}"
            if known:
                tally.check(f"{what} is refused", not good and known in why, why)
            else:
                tally.check(what, good, why)
            # One client that does not get through is enough.
            if not good or place not in cells:
                cells[place] = "works" if good else known or general(why)
    return cells


def general(why):
    """A refusal without what is different in every run."""
    return re.sub(r"\d{3,}|[0-9a-f]{8,}", "…", lane.shorten(why, 200))


def check_declining(tally, every, folder):
    """To decline a form is an answer, and gets through as that."""
    wanted = [(backend, "form") for backend in BACKENDS]
    for client, report in reports(every, lambda client: client.run(folder, wanted, "decline")):
        for (backend, _), call in zip(wanted, report.calls, strict=True):
            tally.check(f"{client.label} declines the form of {backend}", said(call) == ("decline", None), json.dumps(call))


def check_undeclared(tally, every, folder):
    """Who does not say that it can be asked is not asked, and hears why there is no result."""
    wanted = list(itertools.product(BACKENDS, KINDS))
    for anyway in (False, True):
        how = "a server that asks anyway" if anyway else "a server that looks first"
        for client, report in reports(every, lambda client, anyway=anyway: client.run(folder, wanted, "none", 4, anyway=anyway)):
            for (backend, kind), call in zip(wanted, report.calls, strict=True):
                what = f"{client.label} cannot be asked: {how}, {backend}, {KINDS[kind]}"
                tally.check(what, refusal(call), json.dumps(call))


def check_apart(tally, pairs, folder):
    """Two clients at the same time, each with numbers of its own: nobody is asked for, or gets, the other's."""
    for pair in pairs:
        both = " and ".join(client.label for client in pair)
        for backend in BACKENDS:
            wanted = [(backend, kind) for _, kind in zip(range(CALLS), itertools.cycle(KINDS), strict=False)]
            right, crossed, seen = 0, 0, []
            for _, report in reports(pair, lambda client, wanted=wanted: client.run(folder, wanted, together=TOGETHER)):
                right += sum(report.accepted())
                crossed += len(set(report.tags) - set(report.asked))
                crossed += sum(1 for call, good in zip(report.calls, report.accepted(), strict=True) if not good and said(call))
                seen += [call for call, good in zip(report.calls, report.accepted(), strict=True) if not good]
            what = f"{both} call {backend} {CALLS} times each at once"
            tally.equal(f"{what}: 0 answers cross", crossed, 0)
            tally.check(f"{what}: all are answered", right == 2 * CALLS, f"{right} of {2 * CALLS}; {json.dumps(seen[:3])}")


def check_table(tally, cells):
    """What is written is what was measured."""
    same = matrix.committed() == matrix.table(cells)
    tally.check("the table of docs/protocol.md is what was measured", same, "tests/real/matrix.py writes it anew")


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
            check_declining(tally, chosen, folder)
            check_undeclared(tally, [client for client in chosen if client.transport != "HTTP+SSE"], folder)
            check_apart(tally, list(pairs(every, only)), folder)
            if len(chosen) == len(every):
                matrix.remember(cells)
                check_table(tally, cells)
        finally:
            children = lane.descendants(gateway.process.child.pid)
            tally.check("the gateway that passes questions ends when asked", gateway.stop(), "it had to be killed")
            left = lane.survivors(children)
            tally.check("none of the servers that ask is left", not left, f"still there: {left}")
    finally:
        askers.stop()


def pairs(every, only):
    """Two of the legacy era, two of the modern, and one of each."""
    chosen = [client for client in every if client.transport == "Streamable HTTP" and client.label.startswith("typescript 2.4")]
    for pair in itertools.combinations_with_replacement(chosen, 2):
        if any(only in client.label for client in pair):
            yield pair
