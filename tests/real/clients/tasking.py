"""The Python `mcp` client, which knows no tasks, calling tools that take long: tasking.py PLAN.json prints a report as JSON.

Plan and report are the same for every client whose name begins with `tasking`.
Plan:   url | command (one of them), era (legacy | modern), tasks (whether it is to use tasks, if it can),
        calls [{name, arguments, cancel}], together (calls at a time), declares, secret, declined, meet (as in answering.py)
Report: revision, calls [{text, isError} | {error, code} | {cancelled} | {hung}], tags (of the questions it was asked). A call
        that became a task has `task` (its id) and `status` (the last it had) besides, and if the client can ask for these:
        `after` (what the result of the task was after its end, as JSON) and `listed` (whether it is among the tasks).
"""

import asyncio
import json
import sys
import warnings
from pathlib import Path

from mcp import Client

sys.path.insert(0, str(Path(__file__).resolve().parent))
from answering import SECONDS, Answers, server  # noqa: E402

# `mcp` warns about every method of the older era, and only about those.
warnings.simplefilter("ignore")
CANCEL_AFTER = 2


async def job(client, wanted, free):
    async with free:
        seconds = CANCEL_AFTER if wanted["cancel"] else SECONDS
        try:
            result = await asyncio.wait_for(client.call_tool(wanted["name"], wanted["arguments"]), seconds)
        except TimeoutError:
            # The word that it is cancelled may still be on its way.
            await asyncio.sleep(0.5)
            return {"cancelled": True} if wanted["cancel"] else {"hung": True}
        except Exception as why:
            return {"error": str(why)}
        return {"text": "\n".join(getattr(part, "text", "") for part in result.content), "isError": bool(result.is_error)}


async def main():
    with open(sys.argv[1]) as file:
        plan = json.load(file)
    era = {"modern": "2026-07-28"}.get(plan["era"], plan["era"])
    answers, free = Answers(plan), asyncio.Semaphore(plan["together"])
    async with Client(server(plan), mode=era, **answers.callbacks()) as client:
        calls = await asyncio.gather(*(job(client, wanted, free) for wanted in plan["calls"]))
        print(json.dumps({"revision": client.protocol_version, "calls": calls, "tags": answers.tags}), flush=True)


asyncio.run(main())
