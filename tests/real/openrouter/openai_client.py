"""PyPI's `openai`, which many use for OpenRouter."""

import json
import sys

from openai import OpenAI


def outcome(call):
    try:
        return call()
    except Exception as why:
        return {"threw": type(why).__name__, "status": getattr(why, "status_code", None)}


def chat(client, case):
    messages = [{"role": "user", "content": case["text"]}]
    answer = client.chat.completions.create(model=case["model"], messages=messages, stream=case["stream"])
    if not case["stream"]:
        choice = answer.choices[0] if answer.choices else None
        text, finish = (choice.message.content or "", choice.finish_reason) if choice else ("", None)
        return {"text": text, "finish": finish, "usage": bool(answer.usage and answer.usage.total_tokens)}
    seen = {"text": "", "finish": None, "usage": False}
    for chunk in answer:
        for choice in chunk.choices[:1]:
            seen["text"] += choice.delta.content or ""
            seen["finish"] = choice.finish_reason or seen["finish"]
        seen["usage"] |= bool(chunk.usage and chunk.usage.total_tokens)
    return seen


asked = json.load(sys.stdin)
client = OpenAI(api_key=asked["key"], base_url=asked["base"])
seen = {case["name"]: outcome(lambda: chat(client, case)) for case in asked["cases"]}
more = {
    "models": outcome(lambda: len(client.models.list().data) > 400),
    "embeddings": outcome(lambda: len(client.embeddings.create(model="acme/embed-small", input="a").data[0].embedding)),
    "floats": outcome(lambda: len(client.embeddings.create(model="acme/embed-small", input="a", encoding_format="float").data[0].embedding)),
}
json.dump({"seen": seen, "more": more}, sys.stdout)
