"""A real browser (Chromium without a screen) with pages that try to call tools of a gateway on its user's machine.

Rebinding is done as it is done in earnest, but for the name server: `evil.example` is 127.0.0.1 by an option of Chromium's, and the
port behind it, which has given out the page, goes on to the gateway's from then on. To the browser page and gateway are one
origin; only the name tells. Whether a tool ran, its server's file says. A gateway that is told to go by the evil name shows that
the attack would work, and a page that is welcome that a page can.
"""

import contextlib
import http.server
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading

import lane
from servers import SECONDS

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")

# What a page tries at a gateway: each way that a browser has to send something there. `call` names what it creates.
PAGE = """<!doctype html><title>page</title><body><script>
const gateway = GATEWAY, tool = 'memory__create_entities';
const meta = { 'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {} };
const message = way => JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: tool, _meta: meta,
  arguments: { entities: [{ name: LABEL + ' ' + way, entityType: 'attack', observations: ['it ran'] }] } } });
const heads = { 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream',
  'MCP-Protocol-Version': '2026-07-28', 'Mcp-Method': 'tools/call', 'Mcp-Name': tool };
const hello = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'initialize', params: { protocolVersion: '2025-11-25',
  capabilities: {}, clientInfo: { name: 'page', version: '1' } } });
const post = (way, headers, more) => fetch(gateway + '/mcp', { method: 'POST', headers, body: message(way), ...more });
const ways = {
  'a call': () => post('a call', heads),
  'a call as text': () => post('a call as text', { 'Content-Type': 'text/plain' }),
  'a call unseen': () => post('a call unseen', { 'Content-Type': 'text/plain' }, { mode: 'no-cors' }),
  'a call without a type': () => fetch(gateway + '/mcp', { method: 'POST', mode: 'no-cors', body: new Blob([message('a call without a type')]) }),
  'a beacon': async () => ({ status: navigator.sendBeacon(gateway + '/mcp', message('a beacon')) ? 0 : -1 }),
  'a session': () => fetch(gateway + '/mcp', { method: 'POST', headers: { ...heads, 'MCP-Protocol-Version': '2025-11-25' }, body: hello }),
  'a stream': () => fetch(gateway + '/sse'),
  'a look': () => fetch(gateway + '/health'),
};
async function form() {
  const form = document.createElement('form'), frame = document.createElement('iframe');
  frame.name = 'answer';
  const [before, after] = message('a form').split('"it ran"');
  const field = Object.assign(document.createElement('input'), { name: before + '"', value: 'it ran"' + after });
  Object.assign(form, { action: gateway + '/mcp', method: 'post', enctype: 'text/plain', target: 'answer' });
  form.append(field);
  document.body.append(frame, form);
  form.submit();
  await new Promise(done => setTimeout(done, 500));
}
(async () => {
  if (FLIP) await fetch('/flip');
  const seen = {};
  for (const [way, go] of Object.entries(ways)) {
    try {
      const answer = await go();
      seen[way] = answer.status;
      if (way === 'a session') seen.id = answer.headers.get('mcp-session-id');
      if (way === 'a call' && answer.status === 200) seen.text = await answer.text();
    } catch (why) { seen[way] = String(why); }
  }
  if (!SANDBOXED) await form();
  await fetch(REPORT, { method: 'POST', mode: 'no-cors', body: JSON.stringify(seen) });
})();
</script></body>"""


class Site:
    """A web site with one page. When that says so, its port is the gateway's."""

    def __init__(self, gateway_port):
        self.gateway_port, self.page, self.flipped = gateway_port, b"", False
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):  # Closed, it ends.
            while True:
                connection = self.listening.accept()[0]
                threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection):
        with contextlib.suppress(OSError), connection:
            if self.flipped:
                return self.relay(connection)
            asked = connection.recv(1 << 16)
            self.flipped = asked.startswith(b"GET /flip")
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(self.page)}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode() + self.page)

    def relay(self, connection):
        with socket.create_connection(("127.0.0.1", self.gateway_port)) as gateway:
            back = threading.Thread(target=pump, args=(gateway, connection), daemon=True)
            back.start()
            pump(connection, gateway)
            back.join()

    def close(self):
        self.listening.close()


def pump(source, target):
    with contextlib.suppress(OSError):
        while part := source.recv(1 << 16):
            target.sendall(part)
        target.shutdown(socket.SHUT_WR)


class Reports(http.server.ThreadingHTTPServer):
    """Takes what pages say."""

    def __init__(self):
        self.said = queue.Queue()
        super().__init__(("127.0.0.1", 0), Report)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_port}/"


class Report(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.said.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


class Browser:
    def __init__(self, folder):
        found = [path for path in map(shutil.which, PROGRAMS) if path]
        if not found:
            sys.exit("no Chromium is here: apt-get install chromium-headless-shell")
        self.program, self.folder, self.reports, self.visits = found[0], folder, Reports(), 0

    def visit(self, host, site, label, gateway, flip=False, sandboxed=False):
        """Loads the site's page, and gives what that says of its tries."""
        page = PAGE
        for name, value in {"GATEWAY": gateway, "LABEL": label, "FLIP": flip, "SANDBOXED": sandboxed, "REPORT": self.reports.url}.items():
            page = page.replace(name, json.dumps(value))
        if sandboxed:
            page = f'<!doctype html><iframe sandbox="allow-scripts" srcdoc="{page.replace("&", "&amp;").replace(chr(34), "&quot;")}"></iframe>'
        site.page, site.flipped = page.encode(), False
        self.visits += 1
        command = [self.program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        command += ["--host-resolver-rules=MAP *.example 127.0.0.1", f"--user-data-dir={self.folder / f'profile-{self.visits}'}"]
        # It stays until somebody debugs it, which nobody does.
        running = lane.Process([*command, "--remote-debugging-port=0", f"http://{host}:{site.port}/"], self.folder / "chromium.log")
        try:
            return self.reports.said.get(timeout=SECONDS)
        except queue.Empty:
            return {"nothing was said": running.tail(500)}
        finally:
            # What is found under its name may be a script: all of the group is the browser.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.child.pid, signal.SIGKILL)
            running.stop()


def ran(memory, label):
    """The tries of a page that created something."""
    lines = memory.read_text().splitlines() if memory.exists() else []
    return [json.loads(line)["name"] for line in lines if json.loads(line).get("name", "").startswith(f"{label} ")]


class Setting:
    """A gateway with a server that notes down what was done."""

    def __init__(self, binary, tools, folder, listen=""):
        folder.mkdir()
        self.memory = folder / "memory.jsonl"
        command = [tools.node, str(tools.package("server-memory") / "dist" / "index.js")]
        backend = lane.backend("memory", command=command[0], args=command[1:], env={"MEMORY_FILE_PATH": str(self.memory)})
        self.gateway = lane.Gateway(binary, folder, backend)
        if listen:
            text = self.gateway.config.read_text()
            self.gateway.stop()
            self.gateway.config.write_text(text.replace("[listen]\n", f"[listen]\n{listen}\n"))
            self.gateway.start()
        lane.Client(f"{self.gateway.base}/mcp", lane.MODERN).names("tools")


def no_answer(seen):
    """Nothing that the page tried was answered with anything but a refusal that it may not even read."""
    ways = {way: what for way, what in seen.items() if way not in ("id", "text", "a beacon")}
    refused = all(what in (0, 403) or "Failed to fetch" in str(what) for what in ways.values())
    return len(ways) >= 7 and refused and not seen.get("id") and not seen.get("text")


def check_attacks(tally, browser, setting):
    gateway = setting.gateway
    with contextlib.closing(Site(gateway.port)) as site:
        label = "rebound"
        seen = browser.visit("evil.example", site, label, "", flip=True)
        tally.check("a page whose name became the gateway's address is refused", no_answer(seen) and seen.get("a call") == 403, seen)
        tally.equal("and no tool ran", ran(setting.memory, label), [])
        for name in ("127.0.0.1", "localhost"):
            label = f"other {name}"
            seen = browser.visit("evil.example", site, label, f"http://{name}:{gateway.port}")
            tally.check(f"a page of another origin is refused at {name}", no_answer(seen), seen)
            tally.equal(f"and no tool ran at {name}", ran(setting.memory, label), [])
        label = "nowhere"
        seen = browser.visit("evil.example", site, label, f"http://127.0.0.1:{gateway.port}", sandboxed=True)
        tally.check("a page of no origin is refused", no_answer(seen), seen)
        tally.equal("and no tool ran for it", ran(setting.memory, label), [])


def check_welcome(tally, browser, binary, tools, folder):
    """What the attacks do where the doors are open, and what a page can do that is let in."""
    with contextlib.closing(Site(0)) as site:
        open_to_all = Setting(binary, tools, folder / "fooled", 'hosts = ["evil.example"]')
        site.gateway_port = open_to_all.gateway.port
        seen = browser.visit("evil.example", site, "fooled", "", flip=True)
        tally.check("where the gateway goes by the evil name, the same page calls a tool", seen.get("a call") == 200, seen)
        tally.equal("and that runs", ran(open_to_all.memory, "fooled"), ["fooled a call"])
        open_to_all.gateway.stop()
        welcoming = Setting(binary, tools, folder / "welcoming", f'origins = ["http://app.example:{site.port}"]')
        seen = browser.visit("app.example", site, "welcome", f"http://127.0.0.1:{welcoming.gateway.port}")
        tally.check("a page that is welcome calls a tool", seen.get("a call") == 200 and "result" in seen.get("text", ""), seen)
        tally.check("and reads the id of its session", bool(seen.get("id")), seen)
        tally.equal("and what it sent without asking ran not", ran(welcoming.memory, "welcome"), ["welcome a call"])
        welcoming.gateway.stop()


def check(tally, binary, tools, folder):
    folder.mkdir()
    browser = Browser(folder)
    version = subprocess.run([browser.program, "--version"], capture_output=True, text=True, timeout=SECONDS).stdout.strip()
    print(f"..    {version or browser.program}")
    setting = Setting(binary, tools, folder / "gateway")
    try:
        lane.guarded(tally, check_attacks, browser, setting)
    finally:
        setting.gateway.stop()
    lane.guarded(tally, check_welcome, browser, binary, tools, folder)
