"""A client of the legacy era over each of its three transports. It keeps everything that it hears, with where it came,
answers what it is asked, and leaves every judgement to whoever uses it.

Python's standard library only. Not a program of its own.
"""

import contextlib
import http.client
import json
import subprocess
import threading
import time
from urllib.parse import urlsplit

import lane

SECONDS = 30
# The stream of a session that belongs to no request.
OWN = "own stream"


class Silence(Exception):
    """What was waited for did not come."""


class Peer:
    """One session. `answers` has a function for each method that this client can be asked."""

    transport = None

    def __init__(self, revision, capabilities=None, answers=None):
        self.revision, self.capabilities, self.answers = revision, capabilities or {}, answers or {}
        # (where it came, message), in the order of coming; and the lock under which both change.
        self.heard, self.news, self.last = [], threading.Condition(), 0
        # Id to method, of the requests so far.
        self.sent, self.hello = {}, None

    # What a transport does.

    def post(self, message):
        """Sends one message, or a batch of them. What comes of it is heard."""
        raise NotImplementedError

    def close(self):
        raise NotImplementedError

    # What all of them share.

    def hear(self, where, text):
        message = json.loads(text)
        for one in message if isinstance(message, list) else [message]:
            with self.news:
                self.heard.append((where, one))
                self.news.notify_all()
            if "method" in one and "id" in one:
                threading.Thread(target=self.answer, args=(one,), daemon=True).start()

    def answer(self, question):
        answer = {"jsonrpc": "2.0", "id": question["id"]}
        if known := self.answers.get(question["method"]):
            answer["result"] = known(question.get("params", {}))
        else:
            answer["error"] = {"code": -32601, "message": "no such method"}
        with contextlib.suppress(OSError, http.client.HTTPException):
            self.post(answer)

    def until(self, what, found, since=0, seconds=SECONDS):
        """The first message from `since` on of which `found` is true."""
        end = time.monotonic() + seconds
        with self.news:
            while True:
                for _, message in self.heard[since:]:
                    if found(message):
                        return message
                if not self.news.wait(max(0, end - time.monotonic())):
                    raise Silence(f"{what} did not come in {seconds} s; came: {lane.shorten(self.heard[since:])}")

    def mark(self):
        with self.news:
            return len(self.heard)

    def since(self, mark):
        with self.news:
            return [message for _, message in self.heard[mark:]]

    def next_id(self):
        self.last += 1
        return self.last

    def send(self, method, params=None):
        """Sends a request without waiting; the answer is its id."""
        number = self.next_id()
        self.sent[number] = method
        self.post({"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}})
        return number

    def response(self, number, since=0):
        def found(message):
            return message.get("id") == number and "method" not in message

        return self.until(f"the response to {number}", found, since)

    def ask(self, method, params=None):
        """The response to one request, whole: with `result` or `error`."""
        mark = self.mark()
        return self.response(self.send(method, params), mark)

    def result(self, method, params=None):
        response = self.ask(method, params)
        if "result" not in response:
            raise lane.Refused(json.dumps(response.get("error")))
        return response["result"]

    def tell(self, method, params=None):
        self.post({"jsonrpc": "2.0", "method": method, **({"params": params} if params else {})})

    def open(self):
        """The handshake; the answer is what the server said of itself."""
        about = {"protocolVersion": self.revision, "capabilities": self.capabilities}
        if self.revision is None:
            del about["protocolVersion"]
        self.hello = self.result("initialize", {**about, "clientInfo": {"name": "peer", "version": "1"}})
        self.revision = self.hello["protocolVersion"]
        self.tell("notifications/initialized")
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Web:
    """HTTP requests, each on a connection of its own."""

    def __init__(self, base):
        self.base = urlsplit(base)

    def request(self, verb, path, headers, message=None):
        connection = http.client.HTTPConnection(self.base.hostname, self.base.port, timeout=SECONDS)
        body = None if message is None else message if isinstance(message, (bytes, str)) else json.dumps(message)
        connection.request(verb, path, body, headers)
        socket, answer = connection.sock, connection.getresponse()
        # Another thread may be reading it, which a plain `close` would wait for.
        answer.cut = lambda: socket.shutdown(2)
        return answer


class Streamable(Peer):
    """Over Streamable HTTP."""

    transport = "Streamable HTTP"

    def __init__(self, url, *about):
        super().__init__(*about)
        self.web, self.session, self.own = Web(url), None, None

    def headers(self, **more):
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **more}
        if self.session:
            headers["Mcp-Session-Id"] = self.session
        # The header came with 2025-06-18.
        if self.hello and self.revision >= "2025-06-18":
            headers["MCP-Protocol-Version"] = self.revision
        return headers

    def post(self, message):
        number = message.get("id") if isinstance(message, dict) and "method" in message else None
        if number is None or message["method"] == "initialize":
            self.exchange(message, number)
        else:
            threading.Thread(target=self.exchange, args=(message, number), daemon=True).start()

    def exchange(self, message, number):
        with self.web.request("POST", self.web.base.path, self.headers(), message) as answer:
            self.session = answer.headers.get("Mcp-Session-Id") or self.session
            if "event-stream" in answer.headers.get("Content-Type", ""):
                self.read(answer, number)
            elif body := answer.read():
                self.hear(number, body)

    def read(self, stream, where):
        # A connection that is closed under a reader is how a stream ends here.
        with contextlib.suppress(OSError, ValueError, AttributeError, http.client.HTTPException):
            for event in lane.events(stream):
                if event.get("data"):
                    self.hear(where, event["data"])

    def open(self):
        super().open()
        answer = self.web.request("GET", self.web.base.path, self.headers(Accept="text/event-stream"))
        self.own = answer
        threading.Thread(target=self.read, args=(answer, OWN), daemon=True).start()
        return self

    def close(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            self.web.request("DELETE", self.web.base.path, self.headers()).close()
            if self.own:
                self.own.cut()


class Sse(Peer):
    """Over the HTTP+SSE pair."""

    transport = "HTTP+SSE"

    def __init__(self, url, *about):
        super().__init__(*about)
        self.web = Web(url)
        self.stream = self.web.request("GET", self.web.base.path, {"Accept": "text/event-stream"})
        self.events = lane.events(self.stream)
        first = next(self.events)
        if first.get("event") != "endpoint":
            raise lane.Refused(f"the first event names no endpoint: {first}")
        self.endpoint = first["data"]
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        with contextlib.suppress(OSError, ValueError, AttributeError, http.client.HTTPException):
            for event in self.events:
                if event.get("event", "message") == "message" and event.get("data"):
                    self.hear(OWN, event["data"])

    def post(self, message):
        with self.web.request("POST", self.endpoint, {"Content-Type": "application/json"}, message) as answer:
            if answer.status != 202:
                self.hear(answer.status, answer.read())

    def close(self):
        with contextlib.suppress(OSError):
            self.stream.cut()


class Stdio(Peer):
    """Over the standard input and output of a program."""

    transport = "stdio"

    def __init__(self, command, log, *about):
        super().__init__(*about)
        self.noise = []
        with open(log, "ab") as errors:
            pipe = subprocess.PIPE
            self.child = subprocess.Popen([str(word) for word in command], stdin=pipe, stdout=pipe, stderr=errors)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.child.stdout:
            try:
                self.hear(OWN, line)
            except ValueError:
                self.noise.append(line)

    def post(self, message):
        self.child.stdin.write(json.dumps(message).encode() + b"\n")
        self.child.stdin.flush()

    def close(self):
        self.child.stdin.close()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
