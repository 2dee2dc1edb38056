"""A real identity provider in front: oidc-provider issues the tokens, and real clients log in at it, without a person.

Tokens are asked for with client credentials where one is all that is wanted; clients get theirs as they do in earnest, from the
gateway's 401 on: metadata of the resource and of the issuer, registration, consent, code, PKCE. Time passes by libfaketime: the
gateway's clock is set ahead while it runs, so that an hour costs nothing.
"""

import contextlib
import base64
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lane
import plans
from lane import LEGACY, MODERN, guarded
from servers import SECONDS, Stdio

HERE = Path(__file__).resolve().parent
OTHER = "https://other.example.com/mcp"
MACHINES = {
    "engineer": {"groups": ["engineering"], "scope": "read"},
    "clerk": {"groups": ["sales"], "scope": "read"},
    "writer": {"groups": ["sales"], "scope": "read write"},
}
# Who sees what, of a server with many tools more.
SALES, WRITING = ["everything__echo"], ["everything__get-tiny-image"]
# What needs another scope is shown to those who may ask for that.
STEP = ["everything__get-structured-content"]
ENGINEERING = ["everything__echo", *STEP, "everything__get-sum"]
RULES = f"""
[[permit]]
who = {{ group = "engineering" }}
allow = {json.dumps([tool for tool in ENGINEERING if tool not in STEP])}

[[permit]]
who = {{ group = "sales" }}
allow = {json.dumps(SALES)}

[[permit]]
who = {{ group = "sales", scope = "write" }}
allow = {json.dumps(WRITING)}

[[permit]]
who = {{ group = "engineering" }}
needs = ["write", "read"]
allow = {json.dumps(STEP)}
"""
# The clients that come back with more scopes. That of SDK version 1 refreshes its token instead, with the scopes that it had.
STEPPING = ("python legacy", "python modern", "typescript 2.4 legacy", "typescript 2.4 modern")
LIBRARY = Path("/usr/lib") / f"{os.uname().machine}-linux-gnu" / "faketime" / "libfaketimeMT.so.1"


class Provider:
    """The identity provider, which can be stopped and started again with other keys."""

    def __init__(self, tools, folder, resource):
        self.port, self.folder, self.tools, self.times = lane.free_port(), folder, tools, 0
        self.url = f"http://127.0.0.1:{self.port}"
        self.plan = folder / f"provider-{self.port}.json"
        self.plan.write_text(json.dumps({"port": self.port, "resource": resource, "ttl": 4 * 3600, "machines": MACHINES}))

    def start(self):
        lane.placed(HERE / "identity" / "provider.mjs", self.tools.npm)
        # It is written for Node 22 and newer.
        command = [lane.node(22), self.tools.npm / "provider.mjs", self.plan]
        self.process = lane.Process(command, self.folder / f"provider-{self.port}.log")
        self.process.wait_until(lambda: lane.answers(f"{self.url}/.well-known/openid-configuration"), "the identity provider")
        return self

    def stop(self):
        self.process.stop()

    def token(self, machine, resource=None, scope=None):
        """An access token for a machine."""
        form = {"grant_type": "client_credentials", "client_id": machine, "client_secret": machine}
        form |= {"scope": scope or MACHINES[machine]["scope"]} | ({"resource": resource} if resource else {})
        asked = urllib.request.Request(f"{self.url}/token", urllib.parse.urlencode(form).encode())
        with urllib.request.urlopen(asked, timeout=SECONDS) as answer:
            return json.load(answer)["access_token"]

    def change(self, **wanted):
        """Changes its keys or the life of its tokens; the answer counts grants."""
        with urllib.request.urlopen(f"{self.url}/test", json.dumps(wanted).encode(), timeout=SECONDS) as answer:
            return json.load(answer)


class Guarded(lane.Gateway):
    """A gateway that takes this provider's tokens, with a clock that can be set ahead."""

    def __init__(self, binary, folder, everything, issuer):
        folder.mkdir()
        self.clock = folder / "clock"
        self.clock.write_text("+0s")
        # Said with `issuer`, since the provider is told the gateway's address.
        self.issuer = issuer

        def tables(base):
            self.provider = issuer(f"{base}/mcp") if callable(issuer) else issuer
            return (
                f'[log]\nlevel = "info,waystation=debug"\n\n[identify]\naudience = "{base}/mcp"\nscopes = ["read"]\n\n[[identify.issuer]]\nissuer = "{self.provider.url}"\n'
                f"{RULES}\n{lane.backend('everything', url=everything)}"
            )

        env = {"LD_PRELOAD": str(LIBRARY), "FAKETIME_TIMESTAMP_FILE": str(self.clock), "FAKETIME_NO_CACHE": "1"}
        super().__init__(binary, folder, tables, env)
        self.ahead = 0

    def later(self, seconds):
        self.ahead += seconds
        # In one piece: it may be read at any moment.
        new = self.clock.with_name("clock.new")
        new.write_text(f"+{self.ahead}s")
        new.rename(self.clock)
        # It notices when it is woken, and ends the connections that have been silent for so long: not under a client's request.
        lane.answers(f"{self.base}/health")
        time.sleep(0.5)

    def seen_by(self, token, path="/mcp", revision=MODERN):
        """The tools that a token's bearer sees, or the HTTP status of the refusal."""
        try:
            client = lane.Client(f"{self.base}{path}", revision, headers={"Authorization": f"Bearer {token}"})
            return client.names("tools")
        except lane.Refused as no:
            return int(str(no).removeprefix("HTTP ")[:3])

    def called_by(self, token, call):
        """Status and headers of the answer to a call."""
        meta = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {**call, "_meta": meta}}
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "MCP-Protocol-Version": MODERN}
        headers |= {"Mcp-Method": "tools/call", "Mcp-Name": call["name"]}
        asked = urllib.request.Request(f"{self.base}/mcp", json.dumps(message).encode(), headers)
        try:
            with urllib.request.urlopen(asked, timeout=SECONDS) as answer:
                return answer.status, answer.headers
        except urllib.error.HTTPError as answer:
            return answer.code, answer.headers

    def get(self, path, **headers):
        """Status, headers and text of a GET."""
        asked = urllib.request.Request(f"{self.base}{path}", headers={name.replace("_", "-"): value for name, value in headers.items()})
        try:
            with urllib.request.urlopen(asked, timeout=SECONDS) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as answer:
            return answer.code, answer.headers, answer.read().decode()


# ---- Tokens ----------------------------------------------------------------------------------------------------


def check_metadata(tally, gateway):
    """Each endpoint says where to get a token for it."""
    for path in ("/mcp", "/mcp/everything"):
        status, headers, _ = gateway.get(path, Accept="text/event-stream")
        challenge = headers.get("WWW-Authenticate", "")
        place = f"/.well-known/oauth-protected-resource{path}"
        good = status == 401 and 'scope="read"' in challenge and f'resource_metadata="{gateway.base}{place}"' in challenge
        tally.check(f"{path} without a token: 401, and where to get one", good, f"{status} {challenge}")
        document = json.loads(gateway.get(place)[2])
        tally.equal(f"the metadata of {path} is of just this resource", document["resource"], f"{gateway.base}{path}")
        tally.equal(f"the metadata of {path} names the issuer", document["authorization_servers"], [gateway.provider.url])
    document = json.loads(gateway.get("/.well-known/oauth-protected-resource")[2])
    tally.equal("the metadata at the root is the gateway's", document["resource"], f"{gateway.base}/mcp")
    tally.equal("there is no metadata of what is not here", gateway.get("/.well-known/oauth-protected-resource/other")[0], 404)
    with urllib.request.urlopen(f"{gateway.base}/.well-known/oauth-authorization-server", timeout=SECONDS) as answer:
        tally.equal("clients of 2025-03-26 find the issuer at the root", json.load(answer)["issuer"], gateway.provider.url)


def check_tokens(tally, gateway, stranger):
    """Who sees what, by groups and scopes of tokens that a real provider issued."""
    provider, mcp = gateway.provider, f"{gateway.base}/mcp"
    for machine, wanted in {"engineer": ENGINEERING, "clerk": SALES, "writer": SALES + WRITING}.items():
        token = provider.token(machine, mcp)
        for revision in (*LEGACY[1:], MODERN):
            tally.equal(f"{machine} sees what the rules say, at {revision}", gateway.seen_by(token, revision=revision), wanted)
    token = provider.token("engineer", f"{mcp}/everything")
    tally.equal("a token for one endpoint is good there", gateway.seen_by(token, "/mcp/everything"), ["echo", "get-structured-content", "get-sum"])
    tally.equal("and nowhere else", gateway.seen_by(token), 401)
    tally.equal("a token for the gateway is good there", gateway.seen_by(provider.token("engineer", mcp), "/mcp/everything"), ["echo", "get-structured-content", "get-sum"])
    tally.equal("a token for another service is none", gateway.seen_by(provider.token("engineer", OTHER)), 401)
    tally.equal("another provider's token is none", gateway.seen_by(stranger.token("engineer", mcp)), 401)
    head, claims, signature = token.split(".")
    tally.equal("another's signature makes it none", gateway.seen_by(f"{head}.{claims}.{stranger.token('clerk', mcp).split('.')[2]}"), 401)


# ---- Clients ---------------------------------------------------------------------------------------------------


class Login:
    """A client that has to log in, and what it should see then."""

    def __init__(self, label, program, era, revision, path="/mcp", **plan):
        self.label, self.said, self.program, self.revision, self.path = label, label, program, revision, path
        self.plan = {"era": era, "wait": None, **plan}
        self.prefix = "everything__" if path == "/mcp" else ""

    def run(self, gateway, wait=None, then=None):
        """Calls `echo` and once more that, or what is to be called `then`."""
        echo = {"name": f"{self.prefix}echo", "arguments": {"message": self.said}}
        plan = {**self.plan, "url": f"{gateway.base}{self.path}", "calls": [echo, then or echo], "wait": str(wait) if wait else None}
        file = gateway.folder / f"{abs(hash((self.label, str(wait), str(then))))}.json"
        file.write_text(json.dumps(plan))
        return self.program(file, plan)

    def judge(self, tally, report):
        if not isinstance(report, dict):
            tally.check(f"{self.label} logs in", False, report)
            return
        tally.equal(f"{self.label} logs in once", report["logins"], 1)
        tally.equal(f"{self.label} speaks {self.revision}", report["revision"], self.revision)
        tally.equal(f"{self.label} sees what its groups may", sorted(report["tools"]), [f"{self.prefix}{tool.removeprefix('everything__')}" for tool in ENGINEERING])
        tally.equal(f"{self.label} calls a tool, twice", report["calls"], [f"Echo: {self.said}"] * 2)


def logins(tools, folder):
    python = plans.program(tools.python / "python", HERE / "clients" / "login.py")
    typescript = plans.program(tools.node, tools.npm / "login.mjs")
    v1 = plans.program(tools.node, tools.npm / "login-v1.mjs")
    for era, revision in {"legacy": LEGACY[-1], "auto": MODERN, "modern": MODERN}.items():
        yield Login(f"python {era}", python, era, revision)
        yield Login(f"typescript 2.4 {era}", typescript, era, revision)
    for label, sdk, revision in (
        ("typescript 1.32", "@modelcontextprotocol/sdk", LEGACY[-1]),
        ("typescript 1.22", "sdk-2025-06-18", LEGACY[-2]),
        ("typescript 1.11", "sdk-2025-03-26", LEGACY[-3]),
    ):
        yield Login(label, v1, "legacy", revision, sdk=sdk)
    yield Login("python at /mcp/everything", python, "modern", MODERN, "/mcp/everything")
    yield Login("typescript 2.4 at /mcp/everything", typescript, "legacy", LEGACY[-1], "/mcp/everything")
    for protocol, revision in {"legacy": LEGACY[-1], "auto": LEGACY[-1]}.items():
        yield Login(f"mcp-remote {protocol}", remote(tools, folder / f"remote-{protocol}", protocol), "legacy", revision)


def remote(tools, home, protocol):
    """`mcp-remote`, which takes a browser to the issuer by itself; ours is a script that needs no screen."""

    def run(_file, plan):
        home.mkdir()
        visits = home / "visits"
        visits.touch()
        for name in ("x-www-browser", "xdg-open"):
            script = home / name
            script.write_text(f'#!/bin/sh\necho "$1" >>{visits}\nexec {sys.executable} {HERE / "clients" / "browser.py"} "$1"\n')
            script.chmod(0o755)
        env = {"MCP_REMOTE_CONFIG_DIR": str(home), "BROWSER": str(home / "x-www-browser"), "PATH": f"{home}:{os.environ['PATH']}"}
        command = [tools.node, str(tools.npm / "node_modules" / "mcp-remote" / "dist" / "proxy.js"), plan["url"]]
        client = Stdio([*command, "--allow-http", "--protocol", protocol], {**env, "DISPLAY": ""}, home / "log")
        try:
            revision = client.open(LEGACY[-1]).get("protocolVersion")
            names = client.names()
            calls = [lane.text_of(client.request("tools/call", wanted)) for wanted in plan["calls"]]
        finally:
            client.close()
        if not names:
            return (home / "log").read_text()[-2000:]
        return {"revision": revision, "tools": names, "calls": calls, "logins": len(visits.read_text().splitlines())}

    return run


def check_logins(tally, gateway, chosen):
    # Two at a time: as many as there are cores on the smallest machine that runs this.
    with ThreadPoolExecutor(2) as pool:
        for login, report in zip(chosen, pool.map(lambda login: login.run(gateway), chosen), strict=True):
            login.judge(tally, report)


def check_refresh(tally, gateway, chosen):
    """A token whose time is over is refused, and its client comes back with another, without its user."""
    provider = gateway.provider
    # Short by the clock of the client, some of which act on it; the gateway takes it for a minute more.
    provider.change(ttl=2)
    with ThreadPoolExecutor(len(chosen)) as pool:
        waits = [gateway.folder / f"wait-{index}" for index in range(len(chosen))]
        running = [pool.submit(login.run, gateway, wait) for login, wait in zip(chosen, waits, strict=True)]
        while not all(Path(f"{wait}.ready").exists() or client.done() for wait, client in zip(waits, running, strict=True)):
            time.sleep(0.1)
        before = provider.change(ttl=4 * 3600).get("refresh_token", 0)
        time.sleep(2)
        gateway.later(200)
        for wait in waits:
            Path(f"{wait}.go").touch()
        for login, report in zip(chosen, running, strict=True):
            login.label += " (its token ends meanwhile)"
            login.judge(tally, report.result())
    refreshed = provider.change().get("refresh_token", 0) - before
    tally.equal("each of them has refreshed its token, once", refreshed, len(chosen))


def check_step_up(tally, gateway, chosen):
    """A call that needs more scopes than the token has: its client comes back with a token that has them, and those it had."""
    call = {"name": STEP[0], "arguments": {"location": "Chicago"}}
    status, headers = gateway.called_by(gateway.provider.token("engineer", f"{gateway.base}/mcp"), call)
    challenge = headers.get("WWW-Authenticate", "")
    place = f'resource_metadata="{gateway.base}/.well-known/oauth-protected-resource/mcp"'
    good = status == 403 and 'error="insufficient_scope"' in challenge and 'scope="write read"' in challenge and place in challenge
    tally.check("a call that needs another scope: 403, and which", good, f"{status} {challenge}")
    with ThreadPoolExecutor(2) as pool:
        for login, report in zip(chosen, pool.map(lambda login: login.run(gateway, then=call), chosen), strict=True):
            if not isinstance(report, dict):
                tally.check(f"{login.label} comes back with another scope", False, report)
                continue
            tally.equal(f"{login.label} logs in again for another scope", report["logins"], 2)
            tally.check(f"{login.label} has then both", {"read", "write"} <= set(report["scopes"].split()), report["scopes"])
            tally.check(f"{login.label} makes the call with them", "Chicago" in report["calls"][1] or "temperature" in report["calls"][1], report["calls"])


# ---- Keys and time ---------------------------------------------------------------------------------------------


def check_rotation(tally, gateway):
    """New keys hold at once, and those that are gone no longer than the gateway says."""
    provider, mcp = gateway.provider, f"{gateway.base}/mcp"
    old, unseen = provider.token("engineer", mcp), provider.token("clerk", mcp)
    tally.equal("before: a token of the old key is good", gateway.seen_by(old), ENGINEERING)
    provider.change(keys=["b", "a"])
    gateway.later(31)  # Keys are not asked for more often.
    tally.equal("a new key's token is good at once", gateway.seen_by(provider.token("clerk", mcp)), SALES)
    tally.equal("and so is one of the old key, while that is published", gateway.seen_by(old), ENGINEERING)
    provider.change(keys=["b"])
    gateway.later(301)
    tally.equal("five minutes after the old key is gone its token is none", gateway.seen_by(old), 401)
    tally.equal("not even one that was never seen before", gateway.seen_by(unseen), 401)
    tally.equal("the new key's still is", gateway.seen_by(provider.token("clerk", mcp)), SALES)


def check_end(tally, gateway):
    """What a gateway can do about a token that should be none any more: wait for its end."""
    provider, mcp = gateway.provider, f"{gateway.base}/mcp"
    life = gateway.ahead + 100
    provider.change(ttl=life)
    token = provider.token("engineer", mcp)
    provider.change(ttl=4 * 3600)
    tally.equal("a token is good until its end", gateway.seen_by(token), ENGINEERING)
    gateway.later(100 + 50)
    tally.equal("and for the minute that clocks may be apart", gateway.seen_by(token), ENGINEERING)
    gateway.later(11 + 5)
    tally.equal("and then it is none", gateway.seen_by(token), 401)


def for_another(token, audience):
    """The same token as if it had been issued for somebody else; its signature does not fit any more."""
    header, claims, signature = token.split(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    said |= {"aud": audience}
    claims = base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")
    return f"{header}.{claims}.{signature}"


def check_outage(tally, gateway, binary, everything, folder):
    """Known keys go on for an hour without their issuer; unknown ones are waited for."""
    provider, mcp = gateway.provider, f"{gateway.base}/mcp"
    token, other = provider.token("engineer", mcp), provider.token("clerk", mcp)
    tally.equal("before: its tokens are good", gateway.seen_by(token), ENGINEERING)
    provider.stop()
    tally.equal("the issuer is down: a token never seen before is good", gateway.seen_by(other), SALES)
    gateway.later(1800)
    tally.equal("half an hour later its tokens still are", gateway.seen_by(token) + gateway.seen_by(other), ENGINEERING + SALES)
    gateway.later(1900)
    status, headers, _ = gateway.get("/mcp", Authorization=f"Bearer {token}", Accept="text/event-stream")
    tally.equal("an hour later it cannot be said: 503, and when to ask again", (status, headers.get("Retry-After")), (503, "10"))
    late = Guarded(binary, folder, everything, provider)
    try:
        # For the new gateway, as far as can be said without asking its issuer.
        token = for_another(token, f"{late.base}/mcp")
        tally.equal("a gateway that starts without the issuer says 503", late.seen_by(token), 503)
        tally.equal("and 401 to those without a token", late.get("/mcp", Accept="text/event-stream")[0], 401)
        provider.plan.write_text(json.dumps({**json.loads(provider.plan.read_text()), "resource": f"{late.base}/mcp"}))
        provider.start()
        late.later(31)
        token = provider.token("engineer", f"{late.base}/mcp")
        tally.equal("and takes its tokens once it is there", late.seen_by(token), ENGINEERING)
    finally:
        late.stop()


# ---- The part --------------------------------------------------------------------------------------------------


def everything_server(tools, folder):
    port = lane.free_port()
    command = [tools.node, "--import", tools.npm / "loopback.mjs", tools.package("server-everything") / "dist" / "index.js", "streamableHttp"]
    process = lane.Process(command, folder / "everything.log", env={"PORT": str(port)})
    return process.wait_until(lambda: lane.listening(port), "server-everything"), f"http://127.0.0.1:{port}/mcp"


def check(tally, binary, tools, folder, only):
    if not LIBRARY.exists():
        sys.exit(f"{LIBRARY} is missing: apt-get install libfaketime")
    folder.mkdir()
    stranger = Provider(tools, folder, "https://nobody.example.com/mcp")
    with contextlib.ExitStack() as stack:
        process, everything = everything_server(tools, folder)
        stack.callback(process.stop)
        gateway = Guarded(binary, folder / "gateway", everything, lambda resource: Provider(tools, folder, resource))
        stack.callback(gateway.stop)
        gateway.provider.start()
        stack.callback(lambda: gateway.provider.stop())
        stranger.plan.write_text(json.dumps({**json.loads(stranger.plan.read_text()), "resource": f"{gateway.base}/mcp"}))
        stranger.start()
        stack.callback(stranger.stop)
        guarded(tally, check_metadata, gateway)
        guarded(tally, check_tokens, gateway, stranger)
        every = [login for login in logins(tools, folder) if only in login.label]
        guarded(tally, check_logins, gateway, every)
        again = [login for login in every if login.label in ("python modern", "typescript 2.4 legacy", "typescript 1.32")]
        step = [login for login in every if login.label in STEPPING]
        guarded(tally, check_step_up, gateway, step)
        if again:
            guarded(tally, check_refresh, gateway, again)
        guarded(tally, check_rotation, gateway)
        guarded(tally, check_end, gateway)
        guarded(tally, check_outage, gateway, binary, everything, folder / "late")
