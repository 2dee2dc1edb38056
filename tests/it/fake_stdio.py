#!/usr/bin/env python3
"""An MCP server on stdin and stdout that does as its flags say, to be the gateway's child process.

Tools of its own, listed first: `echo`, `slow` (until it is cancelled, or `ms` are over), `progress` (`n` steps,
`every_ms` apart), `raw` (the bytes of `hex` as a whole line, `repeat` times; `@ID` in them is the request's id; with
`as_result`, in place of a result; with `then`, the answer after it), `crash` (`code`, or `signal`), `ask` (asks for a form
after `ms`, cancelled or not, or for what `method` and `params` say, and answers with what came back).

With FAKE_LOG set, it appends to that file one line for each of: `start PID`, `grandchild PID`, `received LINE`,
`cancelled ID NANOSECONDS` (of CLOCK_MONOTONIC), `closed` (stdin has ended), `term` (a SIGTERM was ignored).
"""

import argparse
import json
import os
import signal
import sys
import threading
import time

LEGACY = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]
MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"
OWN_TOOLS = ["echo", "slow", "progress", "raw", "crash", "ask"]


def flags():
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("--era", choices=["legacy", "modern", "both"], default="both")
    add("--name", default="fake")
    add("--newest", choices=LEGACY, default=LEGACY[-1], help="the newest legacy revision spoken")
    add("--tools", type=int, default=0, metavar="N", help="lists tool_0000 and on as well, which answer as echo does")
    add("--page-size", type=int, default=0, metavar="N")
    add("--repeat-cursor", action="store_true", help="the first page and the same cursor for ever")
    add("--expire-cursor", choices=["once", "always"])
    add("--hang", action="store_true", help="reads, and never answers")
    add("--slow-ms", type=int, default=0, metavar="N", help="thinks so long before each answer")
    add("--crash-at-start", action="store_true")
    add("--crash-after-initialize", action="store_true", help="exits as soon as it has answered initialize")
    add("--crash-on-call", action="store_true")
    add("--banner", action="store_true", help="noise on stdout before the first message")
    add("--stderr", metavar="TEXT", help="says this on stderr at the start")
    add("--strict", action="store_true", help="exits on any request before initialize, discovery included")
    add("--ignore-stdin-close", action="store_true")
    add("--ignore-sigterm", action="store_true")
    add("--fork-grandchild", action="store_true", help="leaves a process that holds stdout open")
    return parser.parse_args()


class Refusal(Exception):
    def __init__(self, code, message, data=None):
        self.error = {"code": code, "message": message}
        if data is not None:
            self.error["data"] = data


class Silence(Exception):
    """There is no answer, or it was given already."""


def log(line):
    path = os.environ.get("FAKE_LOG")
    if path:
        # One write to a file opened for appending: lines of several processes stay whole.
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, line.encode() + b"\n")
        os.close(file)


def fork_grandchild():
    """A child of ours that outlives us, unless its whole group is ended; by itself it ends after ten minutes."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
        os._exit(0)
    log(f"grandchild {child}")


class Server:
    def __init__(self, options):
        self.options = options
        names = OWN_TOOLS + [f"tool_{number:04}" for number in range(options.tools)]
        self.tools = {name: self.tool(name) for name in names}
        self.initialized = False
        self.running = {}
        self.asking = {}
        self.expired = False
        self.writing = threading.Lock()

    @staticmethod
    def tool(name):
        return {"name": name, "description": f"The tool {name} of a fake.", "inputSchema": {"type": "object"}}

    # Lines out.

    def write(self, line):
        with self.writing:
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()

    def send(self, **message):
        self.write(json.dumps({"jsonrpc": "2.0", **message}, ensure_ascii=False).encode())

    # Lines in.

    def serve(self):
        for line in sys.stdin.buffer:
            line = line.rstrip(b"\r\n")
            log("received " + line.decode("utf-8", "backslashreplace"))
            if self.options.hang or not line:
                continue
            try:
                message = json.loads(line)
            except ValueError:
                self.send(id=None, error={"code": -32700, "message": "Parse error"})
                continue
            self.take(message)

    def take(self, message):
        method, number = message.get("method"), message.get("id")
        if method is None:
            if number in self.asking:
                self.say(self.asking.pop(number), json.dumps(message.get("result") or message.get("error")), False)
            return
        if number is None:
            if method == "notifications/cancelled":
                self.cancel(message.get("params", {}).get("requestId"))
            return
        if self.options.strict and not self.initialized and method != "initialize":
            print(f"expected initialize, got {method}", file=sys.stderr, flush=True)
            os._exit(1)
        if self.options.slow_ms:
            time.sleep(self.options.slow_ms / 1000)
        self.respond(message)
        if method == "initialize" and self.options.crash_after_initialize:
            os._exit(1)

    def respond(self, message):
        try:
            answer = {"result": self.answer(message)}
        except Refusal as refusal:
            answer = {"error": refusal.error}
        except Silence:
            return
        self.send(id=message["id"], **answer)

    # Methods.

    def answer(self, message):
        method, params = message["method"], message.get("params", {})
        modern = META + "protocolVersion" in params.get("_meta", {})
        if method == "initialize":
            return self.initialize(params)
        if modern and self.options.era == "legacy":
            modern = False  # A server of that time knows nothing of these keys.
            if method == "server/discover":
                raise Refusal(-32601, "Method not found: server/discover")
        elif not modern and self.options.era == "modern":
            raise self.unserved(None)
        if modern and params["_meta"][META + "protocolVersion"] != MODERN:
            raise self.unserved(params["_meta"][META + "protocolVersion"])

        if method == "server/discover" and modern:
            result = {"supportedVersions": [MODERN], "capabilities": self.capabilities(), **self.hints(modern)}
        elif method == "tools/list":
            result = {**self.page(params.get("cursor")), **self.hints(modern)}
        elif method == "tools/call":
            result = self.call(message, params, modern)
        elif method in ("ping", "logging/setLevel") and not modern:
            result = {}
        else:
            raise Refusal(-32601, f"Method not found: {method}")
        return self.complete(result, modern)

    def initialize(self, params):
        if self.options.era == "modern":
            raise self.unserved(params.get("protocolVersion"))
        self.initialized = True
        newest, asked = self.options.newest, params.get("protocolVersion")
        version = asked if asked in LEGACY and asked <= newest else newest
        return {"protocolVersion": version, "capabilities": self.capabilities(), "serverInfo": self.introduction()}

    @staticmethod
    def unserved(requested):
        return Refusal(-32022, "Unsupported protocol version", {"supported": [MODERN], "requested": requested})

    @staticmethod
    def capabilities():
        return {"tools": {"listChanged": True}, "logging": {}}

    def introduction(self):
        return {"name": self.options.name, "version": "1.0.0"}

    @staticmethod
    def hints(modern):
        return {"ttlMs": 0, "cacheScope": "private"} if modern else {}

    def complete(self, result, modern):
        if modern:
            result = {"resultType": "complete", **result, "_meta": {META + "serverInfo": self.introduction()}}
        return result

    def page(self, cursor):
        options, tools = self.options, list(self.tools.values())
        begin = 0
        if cursor is not None and not options.repeat_cursor:
            known = isinstance(cursor, str) and cursor.startswith("from-") and cursor[5:].isdigit()
            expires = options.expire_cursor == "always" or (options.expire_cursor == "once" and not self.expired)
            self.expired = True
            if expires or not known:
                raise Refusal(-32602, "Invalid cursor")
            begin = int(cursor[5:])
        end = begin + options.page_size if options.page_size else len(tools)
        page = {"tools": tools[begin:end]}
        if options.repeat_cursor:
            page["nextCursor"] = "again"
        elif end < len(tools):
            page["nextCursor"] = f"from-{end}"
        return page

    # Tools.

    def call(self, message, params, modern):
        if self.options.crash_on_call:
            print("crashed on a call, as told", file=sys.stderr, flush=True)
            os._exit(1)
        name, arguments = params.get("name"), params.get("arguments") or {}
        if name == "slow":
            self.running[json.dumps(message["id"])] = message["id"]
            if "ms" in arguments:
                threading.Timer(arguments["ms"] / 1000, self.done, (message, modern)).start()
            raise Silence
        if name == "progress":
            threading.Thread(target=self.progress, args=(message, arguments, modern), daemon=True).start()
            raise Silence
        if name == "raw":
            self.raw(message, arguments, modern)
            raise Silence
        if name == "ask" and modern:
            given = params.get("inputResponses", {}).get("answer")
            if given is None:
                request = {"method": arguments["method"], "params": arguments["params"]}
                return {"resultType": "input_required", "inputRequests": {"answer": request}}
            return {"content": [{"type": "text", "text": json.dumps(given)}]}
        if name == "ask":
            threading.Timer(arguments.get("ms", 0) / 1000, self.ask, (message,)).start()
            raise Silence
        if name == "crash":
            if "signal" in arguments:
                os.kill(os.getpid(), arguments["signal"])
            os._exit(arguments.get("code", 1))
        if name not in self.tools:
            raise Refusal(-32602, f"Unknown tool: {name}")
        text = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
        return {"content": [{"type": "text", "text": text}], "structuredContent": arguments}

    def cancel(self, number):
        if self.running.pop(json.dumps(number), None) is not None:
            log(f"cancelled {json.dumps(number)} {time.monotonic_ns()}")

    def done(self, message, modern):
        if self.running.pop(json.dumps(message["id"]), None) is not None:
            self.say(message, "done", modern)

    def say(self, message, text, modern):
        result = {"content": [{"type": "text", "text": text}]}
        self.send(id=message["id"], result=self.complete(result, modern))

    def progress(self, message, arguments, modern):
        meta, steps = message["params"].get("_meta", {}), arguments.get("n", 3)
        wants_log = not modern or meta.get(META + "logLevel") in ("debug", "info")
        for step in range(1, steps + 1):
            time.sleep(arguments.get("every_ms", 0) / 1000)
            if "progressToken" in meta:
                params = {"progressToken": meta["progressToken"], "progress": step, "total": steps}
                params["message"] = f"step {step} of {steps}"
                self.send(method="notifications/progress", params=params)
            if wants_log and step <= arguments.get("logs", steps):
                params = {"level": "info", "logger": self.options.name, "data": f"log {step}"}
                self.send(method="notifications/message", params=params)
        self.say(message, f"{steps} steps", modern)

    def ask(self, message):
        number = f"ask-{message['id']}"
        self.asking[number] = message
        arguments = message["params"].get("arguments") or {}
        form = {"type": "object", "properties": {"name": {"type": "string"}}}
        who = {"message": "Who?", "requestedSchema": form}
        self.send(id=number, method=arguments.get("method", "elicitation/create"), params=arguments.get("params", who))

    def raw(self, message, arguments, modern):
        text = bytes.fromhex(arguments.get("hex", "")) * arguments.get("repeat", 1)
        text = text.replace(b"@ID", json.dumps(message["id"]).encode())
        if arguments.get("as_result"):
            text = b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (json.dumps(message["id"]).encode(), text)
        self.write(text)
        if arguments.get("then"):
            self.say(message, "good", modern)


def main():
    options = flags()
    log(f"start {os.getpid()}")
    if options.ignore_sigterm:
        signal.signal(signal.SIGTERM, lambda *_: log("term"))
    if options.stderr:
        print(options.stderr, file=sys.stderr, flush=True)
    if options.crash_at_start:
        os._exit(1)
    if options.fork_grandchild:
        fork_grandchild()
    server = Server(options)
    if options.banner:
        for noise in (b"Welcome to the fake!", b"", b"{ not json", b"\x1b[32mready\x1b[0m"):
            server.write(noise)
    server.serve()
    log("closed")
    while options.ignore_stdin_close:
        time.sleep(1)
    os._exit(0)


if __name__ == "__main__":
    main()
