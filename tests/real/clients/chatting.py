"""The Python `mcp` client, holding a conversation: chatting.py PLAN.json prints a report as one line of JSON.

Plan and report are the same for every client whose name begins with `chatting`.
Plan:   url, era (legacy | modern), tool, say [arguments] (one after the other, in the conversation of the first),
        cancel (arguments of a call that is given up when the first piece of its answer has come)
Report: revision, tools [name], said [{isError, said, text, …heard}], cancelled {ended, …heard}
Heard:  deltas (all pieces of the answer, put together), pieces, rising (is each progress more than the one before?),
        conversation and turns [id] (as the progress has them)
"""

import asyncio
import json
import sys
import warnings

from mcp import Client

# `mcp` warns about every method of the older era, and only about those.
warnings.simplefilter("ignore")
META = "io.waystation/chat"


class Heard:
    """What is heard of a call. The SDK's callback for progress leaves `_meta` out, so the notifications are read themselves."""

    def __init__(self):
        self.clear()

    def clear(self):
        self.seen = {"deltas": "", "pieces": 0, "rising": True, "conversation": None, "turns": []}
        self.last, self.begun = float("-inf"), asyncio.Event()

    async def message(self, message):
        notification = getattr(message, "root", message)
        if getattr(notification, "method", None) != "notifications/progress":
            return
        params = notification.params.model_dump(by_alias=True)
        self.seen["rising"] &= params["progress"] > self.last
        self.last = params["progress"]
        about = (params.get("_meta") or {}).get(META) or {}
        self.seen["conversation"] = self.seen["conversation"] or about.get("conversation_id")
        if about.get("turn_id") and about["turn_id"] not in self.seen["turns"]:
            self.seen["turns"].append(about["turn_id"])
        if about.get("kind") == "delta":
            self.seen["deltas"] += params["message"]
            self.seen["pieces"] += 1
            self.begun.set()


async def ignored(_now, _total, _message):
    """Without a callback the client asks for no progress."""


async def main():
    with open(sys.argv[1]) as file:
        plan = json.load(file)
    heard = Heard()

    async def call(arguments):
        heard.clear()
        return await client.call_tool(plan["tool"], arguments, progress_callback=ignored)

    async with Client(plan["url"], mode={"modern": "2026-07-28"}.get(plan["era"], plan["era"]), message_handler=heard.message) as client:
        report = {"revision": client.protocol_version, "tools": [], "said": []}
        cursor = None
        while True:
            page = await client.list_tools(cursor=cursor)
            report["tools"] += [tool.name for tool in page.tools]
            cursor = page.next_cursor
            if not cursor:
                break
        conversation = {}
        for arguments in plan["say"]:
            result = await call({**conversation, **arguments})
            said = result.structured_content
            conversation = conversation or {"conversation_id": said["conversation_id"]}
            report["said"].append({**heard.seen, "isError": bool(result.is_error), "said": said, "text": result.content[0].text})
        given_up = asyncio.create_task(call(plan["cancel"]))
        await asyncio.sleep(0)
        await asyncio.wait_for(heard.begun.wait(), 30)
        given_up.cancel()
        ended = "cancelled" if isinstance((await asyncio.gather(given_up, return_exceptions=True))[0], asyncio.CancelledError) else "answered"
        report["cancelled"] = {**heard.seen, "ended": ended}
    print(json.dumps(report))


asyncio.run(main())
