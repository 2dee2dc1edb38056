"""The Python `mcp` client, driven by a plan: python.py PLAN.json prints a report as one line of JSON.

Plan and report are the same for every client in this folder; tests/real/run writes the one and judges the other.
Plan:   url | sse | command (one of them), era (legacy | auto | modern),
        calls [{name, arguments}], prompts [{name, arguments}], resources [uri]
Report: revision, tools [name], calls [{text, structured, isError, progress}], prompts [text], resources [text]
"""

import asyncio
import json
import sys
import warnings

from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client

# `mcp` warns about every method of the older era, and only about those.
warnings.simplefilter("ignore")


def server(plan):
    if "url" in plan:
        return plan["url"]
    if "sse" in plan:
        return sse_client(plan["sse"])
    command, *args = plan["command"]
    return StdioServerParameters(command=command, args=args)


async def tools(client):
    names, cursor = [], None
    while True:
        page = await client.list_tools(cursor=cursor)
        names += [tool.name for tool in page.tools]
        cursor = page.next_cursor
        if not cursor:
            return names


async def call(client, wanted):
    progress = []

    async def heard(now, total, message):
        progress.append(now)

    result = await client.call_tool(wanted["name"], wanted["arguments"], progress_callback=heard)
    return {
        "text": text(result.content),
        "structured": result.structured_content,
        "isError": bool(result.is_error),
        "progress": len(progress),
    }


async def prompt(client, wanted):
    result = await client.get_prompt(wanted["name"], wanted["arguments"])
    return text(message.content for message in result.messages)


async def resource(client, uri):
    return "\n".join(getattr(part, "text", "") for part in (await client.read_resource(uri)).contents)


def text(parts):
    return "\n".join(getattr(part, "text", "") for part in parts)


async def main():
    with open(sys.argv[1]) as file:
        plan = json.load(file)
    era = {"modern": "2026-07-28"}.get(plan["era"], plan["era"])
    async with Client(server(plan), mode=era) as client:
        report = {
            "revision": client.protocol_version,
            "tools": await tools(client),
            "calls": [await call(client, wanted) for wanted in plan["calls"]],
            "prompts": [await prompt(client, wanted) for wanted in plan["prompts"]],
            "resources": [await resource(client, uri) for uri in plan["resources"]],
        }
    print(json.dumps(report))


asyncio.run(main())
