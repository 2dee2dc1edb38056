"""The Python `mcp` client answering questions, driven by a plan: answering.py PLAN.json prints a report as JSON.

Plan and report are the same for every client whose name begins with `answering`.
Plan:   url | sse | command (one of them), era (legacy | modern), calls [{name, arguments}], together (calls at a time),
        meet (files: once it is connected it makes the first one, and begins when all are there),
        declares (whether it says that it can be asked everything, or nothing), secret (a number), declined [tag]
Report: revision, calls [{text, isError} | {error} | {hung}, each with `time`: when it began and ended],
        tags (those of the questions it was asked)

A question about #TAG is answered with secret + TAG, one about roots, which has no words, with the secret. The forms
about the tags in `declined` are declined; to be asked for a model's words about those is an error, "not today".
"""

import asyncio
import json
import re
import sys
import time
import urllib.request
import warnings
from pathlib import Path

import mcp_types as types
from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client

# `mcp` warns about every method of the older era, and only about those.
warnings.simplefilter("ignore")
# Longer than anything here takes; what takes as long would never have ended.
SECONDS = 20


class Answers:
    def __init__(self, plan):
        self.plan, self.tags = plan, []

    def number(self, text):
        tag = int(re.search(r"#(\d+)", text)[1])
        self.tags.append(tag)
        return self.plan["secret"] + tag

    async def elicitation(self, _context, params):
        number = self.number(params.message)
        if self.tags[-1] in self.plan["declined"]:
            return types.ElicitResult(action="decline")
        if params.mode == "url":
            visit = urllib.request.urlopen(f"{params.url}&number={number}", timeout=SECONDS)
            visit.close()
            return types.ElicitResult(action="accept")
        return types.ElicitResult(action="accept", content={"number": number})

    async def sampling(self, _context, params):
        content = params.messages[0].content
        text = (content[0] if isinstance(content, list) else content).text
        answer = types.TextContent(type="text", text=str(self.number(text)))
        if self.tags[-1] in self.plan["declined"]:
            return types.ErrorData(code=-1, message="not today")
        return types.CreateMessageResult(role="assistant", model="none", content=answer)

    async def roots(self, _context):
        return types.ListRootsResult(roots=[types.Root(uri=f"file:///number/{self.plan['secret']}")])

    def callbacks(self):
        if not self.plan["declares"]:
            return {}
        return {"elicitation_callback": self.elicitation, "sampling_callback": self.sampling, "list_roots_callback": self.roots}


def server(plan):
    if "url" in plan:
        return plan["url"]
    if "sse" in plan:
        return sse_client(plan["sse"])
    command, *args = plan["command"]
    return StdioServerParameters(command=command, args=args)


async def timed(client, wanted, free):
    async with free:
        began = time.time()
        result = await call(client, wanted)
        return {**result, "time": [began, time.time()]}


async def call(client, wanted):
    try:
        result = await asyncio.wait_for(client.call_tool(wanted["name"], wanted["arguments"]), SECONDS)
    except TimeoutError:
        return {"hung": True}
    except Exception as why:
        return {"error": str(why)}
    return {"text": "\n".join(getattr(part, "text", "") for part in result.content), "isError": bool(result.is_error)}


async def meet(files):
    for file in files[:1]:
        Path(file).touch()
    while not all(Path(file).exists() for file in files):
        await asyncio.sleep(0.002)


async def main():
    with open(sys.argv[1]) as file:
        plan = json.load(file)
    era = {"modern": "2026-07-28"}.get(plan["era"], plan["era"])
    answers, free = Answers(plan), asyncio.Semaphore(plan["together"])
    async with Client(server(plan), mode=era, **answers.callbacks()) as client:
        await meet(plan["meet"])
        calls = await asyncio.gather(*(timed(client, wanted, free) for wanted in plan["calls"]))
        report = {"revision": client.protocol_version, "calls": calls, "tags": answers.tags}
    print(json.dumps(report))


if __name__ == "__main__":
    asyncio.run(main())
