"""The Python `mcp` client at a gateway that wants to know who asks: login.py PLAN.json prints a report as one line of JSON.

Plan and report are the same for every client whose name begins with `login`.
Plan:   url, era (legacy | auto | modern), calls [{name, arguments}],
        wait (a file, or null: before the last call the client makes FILE.ready, and waits until there is FILE.go)
Report: revision, tools [name], calls [text], logins (how often the browser was opened), scopes (of the last token)
"""

import asyncio
import json
import sys
import urllib.parse
import warnings
from pathlib import Path

import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

sys.path.insert(0, str(Path(__file__).resolve().parent))
from browser import visit  # noqa: E402

# `mcp` warns about every method of the older era, and only about those.
warnings.simplefilter("ignore")
BACK = "http://127.0.0.1:53682/callback"


class Storage:
    tokens = client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


class Browser:
    logins, ended = 0, None

    async def open(self, url):
        self.logins += 1
        self.ended = await asyncio.to_thread(visit, url, BACK)

    async def result(self):
        said = dict(urllib.parse.parse_qsl(urllib.parse.urlparse(self.ended).query))
        return AuthorizationCodeResult(code=said["code"], state=said.get("state"), iss=said.get("iss"))


async def sign(file):
    Path(f"{file}.ready").touch()
    while not Path(f"{file}.go").exists():
        await asyncio.sleep(0.1)


async def main():
    plan = json.loads(Path(sys.argv[1]).read_text())
    storage, browser = Storage(), Browser()
    about = OAuthClientMetadata(client_name="python", redirect_uris=[BACK])
    auth = OAuthClientProvider(plan["url"], about, storage, browser.open, browser.result)
    era = {"modern": "2026-07-28"}.get(plan["era"], plan["era"])
    async with httpx2.AsyncClient(auth=auth, timeout=30) as http:
        async with Client(streamable_http_client(plan["url"], http_client=http), mode=era) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            calls = []
            for index, wanted in enumerate(plan["calls"]):
                if index == len(plan["calls"]) - 1 and plan["wait"]:
                    await sign(plan["wait"])
                result = await client.call_tool(wanted["name"], wanted["arguments"])
                calls.append("\n".join(getattr(part, "text", "") for part in result.content))
            report = {"revision": client.protocol_version, "tools": tools, "calls": calls}
    print(json.dumps({**report, "logins": browser.logins, "scopes": storage.tokens.scope}))


asyncio.run(main())
