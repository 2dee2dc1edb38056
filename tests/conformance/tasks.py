"""The suite's scenarios of the extension io.modelcontextprotocol/tasks, through the gateway.

They stand on no revision's list, so they are run one by one. Behind the gateway is once a server of the extension
(tasks-target.mjs) and once one of the tasks of 2025-11-25 with tools of the same names (tests/real/tasking/v1.mjs), to
which the gateway has to translate. As everywhere in this lane, what succeeds directly has to succeed through the gateway,
but for what expected-failures-tasks.yaml and expected-failures-tasks-v1.yaml list, with the reason.
"""

import contextlib
import itertools
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lane
from lane import MODERN

HERE = Path(__file__).resolve().parent
REAL = HERE.parent / "real"
SERVERS = ("v2", "v1")
ENDPOINTS = ("own", "named")
TOOLS = {"greet", "slow_compute", "failing_job", "protocol_error_job", "confirm_delete", "multi_input", "test_tool_with_task"}
SCENARIO_MS = 20_000


class Scenarios:
    """The scenarios, and what came of each when there was no gateway."""

    def __init__(self, suite, checks, folder):
        self.suite, self.checks = suite, checks
        self.program = [suite.node, suite.package / "dist" / "index.js"]
        listed = subprocess.run([*map(str, self.program), "list", "--server"], capture_output=True, text=True, timeout=60).stdout
        self.names = re.findall(r"- (tasks-[a-z-]+) ", listed)
        with target(suite, "v2", folder) as url:
            found = self.run(url, folder / "direct")
        # One of them only says that it is yet to be written.
        self.idle = [name for name, seen in found.items() if not any(check["status"] == "SUCCESS" for check in seen)]
        self.direct = {name: seen for name, seen in found.items() if name not in self.idle}

    def run(self, url, folder):
        folder.mkdir(parents=True)
        found = {}
        for name in self.names:
            command = [*self.program, "server", "--url", url, "--scenario", name, "--spec-version", MODERN, "--force"]
            command += ["--timeout", SCENARIO_MS, "-o", folder / "raw"]
            with open(folder / "log.txt", "a") as log, contextlib.suppress(subprocess.TimeoutExpired):
                words = [str(word) for word in command]
                subprocess.run(words, stdout=log, stderr=subprocess.STDOUT, timeout=4 * SCENARIO_MS / 1000)
            found[name] = self.checks(folder / "raw", name)
        return found


@contextlib.contextmanager
def target(suite, server, folder):
    port = lane.free_port()
    if server == "v2":
        command = [suite.node, HERE / "tasks-target.mjs", "--port", port]
    else:
        # Made of what the real servers are made of.
        home = lane.npm_tools(REAL)
        lane.placed(REAL / "tasking", home)
        command = [suite.node, home / "tasking" / "v1.mjs", "streamable", "--port", port]
    process = lane.Process(command, folder / f"tasks-{server}-{port}.log")
    try:
        process.wait_until(lambda: lane.listening(port), f"the {server} server of tasks")
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.stop()


def measure(scenarios, board, folder, way, judge):
    """`way(url, kind, place)` opens an endpoint of a gateway before a server; `judge(seen, server)` makes the score."""

    def one(job):
        server, kind = job
        place, began = folder / f"{server}-{kind}", time.monotonic()
        place.mkdir()
        with target(scenarios.suite, server, place) as url, way(url, kind, place) as tested:
            board.check(f"tasks {server} {kind}", "the tools are listed", await_tools(tested))
            score = judge(scenarios.run(tested, place / "suite"), server)
        board.add(f"tasks {server} {kind}", MODERN, score, time.monotonic() - began)

    # Two at a time, as everywhere in this lane.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, itertools.product(SERVERS, ENDPOINTS)))


def await_tools(url, seconds=15):
    """Nothing is asked before the gateway has met its backend. What is wrong, if it never does."""
    end, names = time.monotonic() + seconds, set()
    while not TOOLS <= names and time.monotonic() < end:
        with contextlib.suppress(lane.Refused, OSError, KeyError):
            names = set(lane.Client(url, MODERN).names("tools"))
        time.sleep(0.1)
    return "" if names >= TOOLS else f"missing: {sorted(TOOLS - names)}"
