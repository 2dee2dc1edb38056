"""What each client is asked to do, and what it has to report: the calls, the clients, and every pairing of them.

A client is a program of clients/ (or rmcp-client) that takes a plan and prints a report; clients/python.py says what
stands in either. The Inspector, which has a command line of its own, is dressed up as one here.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import lane
from lane import LEGACY, MODERN
from servers import NOTE, SECONDS

HERE = Path(__file__).resolve().parent


class Call:
    """A tool call, and what has to come of it."""

    def __init__(self, backend, tool, arguments, good, progress=0):
        self.backend, self.tool, self.arguments = backend, tool, arguments
        self.good, self.progress = good, progress

    def name(self):
        return f"{self.backend}__{self.tool}"

    def wanted(self):
        return {"name": self.name(), "arguments": self.arguments}


def says(text):
    return lambda result: text in result["text"] and not result["isError"]


def structured(result):
    """The structured content, which a client of a revision before 2025-06-18 gets as text alone."""
    older = result["revision"] < LEGACY[2]
    return json.loads(result["text"]) if older and result["structured"] is None else not older and result["structured"]


def calls(servers):
    """A call for each backend, and for each thing that could go wrong on the way."""
    hello = {"message": "grüß dich, 世界 \U0001f44b"}
    greeted = says(f"Echo: {hello['message']}")
    convert = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
    steps = {"duration": 0.5, "steps": 5}
    return [
        Call("everything", "echo", hello, greeted),
        Call("everything", "get-sum", {"a": 2, "b": 40}, says("42")),
        Call("everything", "get-structured-content", {"location": "Chicago"}, lambda r: structured(r)["temperature"] == 36),
        Call("everything", "trigger-long-running-operation", steps, says("operation completed"), progress=4),
        Call("filesystem", "read_text_file", {"path": str(servers.files / "note.txt")}, lambda r: r["text"] == NOTE),
        # A tool's own error is a result, and must arrive as one.
        Call("filesystem", "read_text_file", {"path": "/etc/hostname"}, lambda r: r["isError"] and "denied" in r["text"]),
        Call("memory", "open_nodes", {"names": ["Waystation"]}, says("stands by the road")),
        Call("time", "convert_time", convert, says("+9.0h")),
        Call("git", "git_status", {"repo_path": str(servers.repository)}, says("untracked-file.txt")),
        Call("everything-http", "echo", hello, greeted),
        Call("everything-http", "trigger-long-running-operation", steps, says("operation completed"), progress=4),
        Call("everything-sse", "echo", hello, greeted),
    ]


def remember(name):
    """Arguments of memory__create_entities."""
    return {"entities": [{"name": name, "entityType": "house", "observations": ["stands by the road"]}]}


class Run:
    """One client, in one era, over one transport, with what it should find."""

    def __init__(self, label, program, revision, tools, calls, **plan):
        self.label, self.program, self.plan = label, program, plan
        self.revision, self.tools, self.calls = revision, tools, calls

    def report(self, folder):
        """What the client says it saw, or a text about why there is no report."""
        plan = dict(self.plan, calls=[call.wanted() for call in self.calls])
        file = folder / f"plan-{re.sub(r'[^a-z0-9]+', '-', self.label.lower())}.json"
        file.write_text(json.dumps(plan))
        return self.program(file, plan)

    def judge(self, tally, report):
        if not isinstance(report, dict):
            tally.check(f"{self.label} connects", False, report)
            return
        tally.equal(f"{self.label} speaks {self.revision}", report["revision"], self.revision)
        tally.equal(f"{self.label} lists {len(self.tools)} tools", sorted(report["tools"]), self.tools)
        for call, result in zip(self.calls, report["calls"], strict=True):
            tally.check(f"{self.label} calls {call.name()}", good(call, result, report), json.dumps(result, ensure_ascii=False))
        for text in report["prompts"]:
            tally.check(f"{self.label} gets a prompt", "simple prompt" in text, text)
        for text in report["resources"]:
            tally.check(f"{self.label} reads a resource", "Everything Server" in text, text[:200])


def good(call, result, report):
    # Not exactly so many: what comes in one piece with the result, as the last one may, some clients drop.
    if report.get("progress", True) and not call.progress <= result["progress"] <= 2 * call.progress:
        return False
    try:
        return bool(call.good(dict(result, revision=report["revision"])))
    except (KeyError, TypeError):
        return False


def program(*command):
    """A client of clients/ or rmcp-client: takes a plan, prints a report."""

    def run(file, _plan):
        try:
            done = subprocess.run([*map(str, command), str(file)], capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired as late:
            return f"no report in {SECONDS} s; {late.stderr or ''}"
        try:
            return json.loads(done.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            return f"exit {done.returncode}: {done.stderr[-1500:]}{done.stdout[-500:]}"

    return run


def inspector(tools, folder):
    """The Inspector has a command line of its own: one run for each request."""
    start = [tools.node, str(tools.package("inspector") / "clients" / "launcher" / "build" / "index.js"), "--cli"]
    home = dict(os.environ, HOME=str(folder))

    def ask(plan, *words):
        where = [plan["url"], "--transport", "http"] if "url" in plan else [plan["sse"], "--transport", "sse"]
        words = [*where, "--protocol-era", plan["era"], "--format", "json", "--quiet", *words]
        done = subprocess.run(start + words, capture_output=True, text=True, timeout=SECONDS, env=home)
        try:
            return json.loads(done.stdout)["result"]
        except (ValueError, KeyError):
            raise RuntimeError(f"{' '.join(words)}: exit {done.returncode}: {done.stderr[-1500:]}{done.stdout[-500:]}") from None

    def call(plan, wanted):
        arguments = json.dumps(wanted["arguments"])
        result = ask(plan, "--method", "tools/call", "--tool-name", wanted["name"], "--tool-args-json", arguments)
        structured, failed = result.get("structuredContent"), result.get("isError", False)
        return {"text": lane.text_of(result), "structured": structured, "isError": failed}

    def run(_file, plan):
        try:
            return {
                "revision": ask(plan, "--method", "initialize")["protocolVersion"],
                "tools": [tool["name"] for tool in ask(plan, "--method", "tools/list")["tools"]],
                "calls": [call(plan, wanted) for wanted in plan["calls"]],
                # It neither asks for progress nor shows any.
                "progress": False, "prompts": [], "resources": [],
            }
        except (RuntimeError, KeyError, subprocess.TimeoutExpired) as why:
            return str(why)

    return run


def runs(tools, gateway, stdio, folder, all_tools, few_tools, all_calls):
    """Every client in every era over every transport that it has."""
    url, sse = f"{gateway.base}/mcp", f"{gateway.base}/sse"
    python = program(tools.python / "python", HERE / "clients" / "python.py")
    typescript = program(tools.node, tools.npm / "typescript.mjs")
    v1 = program(tools.node, tools.npm / "typescript-v1.mjs")
    rust, inspect = program(tools.rmcp), inspector(tools, folder)
    eras = {"legacy": LEGACY[-1], "auto": MODERN, "modern": MODERN}
    extras = {
        "prompts": [{"name": "everything__simple-prompt", "arguments": {}}],
        "resources": ["demo://resource/static/document/architecture.md"],
    }
    none = {"prompts": [], "resources": []}
    # The Inspector takes two seconds for each.
    one_each = {"everything__get-structured-content", "time__convert_time", "everything-sse__echo"}
    short = [call for call in all_calls if call.name() in one_each]
    few = [call for call in all_calls if call.backend in ("memory", "everything-http")]

    for era, revision in eras.items():
        for name, client in {"python": python, "typescript 2.4": typescript, "rmcp": rust}.items():
            yield Run(f"{name} {era}", client, revision, all_tools, all_calls, era=era, url=url, **extras)
        yield Run(f"inspector {era}", inspect, revision, all_tools, short, era=era, url=url, **none)
    yield Run("typescript 1.32", v1, LEGACY[-1], all_tools, all_calls, era="legacy", url=url, **extras)
    for revision in LEGACY[1:-1]:
        yield Run(f"rmcp {revision}", rust, revision, all_tools, all_calls, era="legacy", ask=revision, url=url, **extras)
    for name, client in {"python": python, "typescript 2.4": typescript, "typescript 1.32": v1}.items():
        yield Run(f"{name} over HTTP+SSE", client, LEGACY[-1], all_tools, all_calls, era="legacy", sse=sse, **extras)
    yield Run("inspector over HTTP+SSE", inspect, LEGACY[-1], all_tools, short, era="legacy", sse=sse, **none)
    for era, revision in eras.items():
        for name, client in {"python": python, "typescript 2.4": typescript, "rmcp": rust}.items():
            yield Run(f"{name} {era} over stdio", client, revision, few_tools, few, era=era, command=stdio, **none)
    yield Run("typescript 1.32 over stdio", v1, LEGACY[-1], few_tools, few, era="legacy", command=stdio, **none)
