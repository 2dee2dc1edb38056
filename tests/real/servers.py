"""What the checks of tests/real run on: the programs from the registries, and the servers made of them."""

import contextlib
import functools
import json
import os
import subprocess
import threading
from pathlib import Path

import lane

HERE = Path(__file__).resolve().parent
NOTE = "Zeile eins – ¼ π\n{\"not\": 1e400}\n"
# Longer than anything here takes, even on a machine with other work to do.
SECONDS = 60


class Tools:
    """The programs from the registries."""

    def __init__(self):
        self.node = lane.node(20)
        self.npm = lane.npm_tools(HERE)
        self.python = lane.python_tools(HERE)
        # A script finds its packages beside itself, so the clients are run from where these are.
        for script in [*(HERE / "clients").glob("*.mjs"), HERE / "loopback.mjs"]:
            lane.placed(script, self.npm)

    @functools.cached_property
    def rmcp(self):
        target = lane.TOOLS / "rmcp-client"
        with lane.step("the Rust client (built once)"):
            lane.quietly(
                ["cargo", "build", "--quiet", "--locked", "--manifest-path", HERE / "rmcp-client" / "Cargo.toml"],
                env=dict(os.environ, CARGO_TARGET_DIR=str(target)),
            )
        return target / "debug" / "rmcp-client"

    def package(self, name):
        return self.npm / "node_modules" / "@modelcontextprotocol" / name


class Servers:
    """The reference servers: how each is started, and the two that listen by themselves."""

    def __init__(self, tools, folder):
        self.tools, self.folder = tools, folder
        self.files = folder / "files"
        self.files.mkdir()
        (self.files / "note.txt").write_text(NOTE)
        self.repository = self.make_repository()
        self.running = []
        self.http, self.sse = self.listen("streamableHttp"), self.listen("sse")

    def make_repository(self):
        repository = self.folder / "repository"
        lane.quietly(["git", "init", "--quiet", "--initial-branch=trunk", repository])
        (repository / "untracked-file.txt").write_text("new")
        return repository

    def script(self, name, *arguments):
        return [self.tools.node, str(self.tools.package(name) / "dist" / "index.js"), *arguments]

    def commands(self):
        """Name to (command, environment) of the five that speak over stdio."""
        bare = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null"}
        return {
            "everything": (self.script("server-everything", "stdio"), {}),
            "filesystem": (self.script("server-filesystem", str(self.files)), {}),
            "memory": (self.script("server-memory"), {"MEMORY_FILE_PATH": str(self.folder / "memory.jsonl")}),
            "time": ([str(self.tools.python / "mcp-server-time"), "--local-timezone", "UTC"], {}),
            "git": ([str(self.tools.python / "mcp-server-git"), "--repository", str(self.repository)], bare),
        }

    def listen(self, transport):
        port = lane.free_port()
        command = [self.tools.node, "--import", str(self.tools.npm / "loopback.mjs")]
        command += self.script("server-everything", transport)[1:]
        log = self.folder / f"everything-{transport}.log"
        process = lane.Process(command, log, env={"PORT": str(port)})
        self.running.append(process.wait_until(lambda: lane.listening(port), f"server-everything {transport}"))
        return f"http://127.0.0.1:{port}"

    def routes(self):
        """All of them as tables of routes.toml."""
        tables = [
            lane.backend(name, command=command[0], args=command[1:], **({"env": env} if env else {}))
            for name, (command, env) in self.commands().items()
        ]
        return "".join(tables) + self.over_http() + lane.backend("everything-sse", url=f"{self.sse}/sse", transport="sse")

    def over_http(self):
        return lane.backend("everything-http", url=f"{self.http}/mcp")

    def few(self):
        """Enough for a gateway over stdio, which every client starts anew: one that runs, and one child."""
        command, env = self.commands()["memory"]
        return self.over_http() + lane.backend("memory", command=command[0], args=command[1:], env=env)

    def stop(self):
        for process in self.running:
            process.stop()


class Stdio:
    """A bare client of a server over stdio; it notices whatever on stdout is not protocol."""

    def __init__(self, command, env=None, log=None):
        self.err = open(log, "ab") if log else subprocess.DEVNULL
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.err, text=True, bufsize=1,
            env=dict(os.environ, **(env or {})),
        )
        self.noise, self.last = [], 0
        # A server that says nothing must not hold up the lane.
        self.watchdog = threading.Timer(SECONDS, self.child.kill)
        self.watchdog.start()

    def send(self, message):
        self.child.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")

    def request(self, method, params):
        self.last += 1
        self.send({"id": self.last, "method": method, "params": params})
        for line in self.child.stdout:
            reply = self.message(line)
            if reply.get("id") == self.last and "method" not in reply:
                return reply.get("result") or {"error": reply.get("error")}
        return {"error": "the process ended"}

    def message(self, line):
        """What a line says; nothing if it is not protocol."""
        with contextlib.suppress(ValueError):
            message = json.loads(line)
            if isinstance(message, dict) and "jsonrpc" in message:
                return message
        self.noise.append(line)
        return {}

    def open(self, revision):
        about = {"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "lane", "version": "1"}}
        hello = self.request("initialize", about)
        self.send({"method": "notifications/initialized"})
        return hello

    def names(self):
        return sorted(tool["name"] for tool in self.request("tools/list", {}).get("tools", []))

    def close(self):
        """Closes stdin; the answer is whether the process then ended by itself, in good time and in good order."""
        try:
            self.child.stdin.close()
            # A list may have changed meanwhile, which is protocol too.
            for line in self.child.stdout:
                self.message(line)
            return self.child.wait(10) == 0
        except (OSError, subprocess.TimeoutExpired):
            self.child.kill()
            return False
        finally:
            self.watchdog.cancel()
