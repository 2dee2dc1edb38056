"""PyPI's `openrouter`: every endpoint that it has a method for, and how it takes what goes wrong."""

import json
import sys

from openrouter import OpenRouter
from openrouter.utils import BackoffStrategy, RetryConfig

# One try again after half a second, and no hour of them.
NEVER = RetryConfig("none", BackoffStrategy(1, 1, 1, 1), False)


def outcome(call):
    try:
        return call()
    except Exception as why:
        return {"threw": type(why).__name__, "status": getattr(why, "status_code", None)}


def chat(router, case):
    more = {} if case["patient"] else {"retries": NEVER}
    messages = [{"role": "user", "content": case["text"]}]
    answer = router.chat.send(model=case["model"], messages=messages, stream=case["stream"], **more)
    if not case["stream"]:
        choice = answer.choices[0]
        return {"text": choice.message.content or "", "finish": choice.finish_reason, "usage": answer.usage.total_tokens > 0}
    seen = {"text": "", "finish": None, "usage": False}
    for chunk in answer:
        if chunk.error:
            seen["error"] = int(chunk.error.code)
        for choice in chunk.choices[:1]:
            seen["text"] += choice.delta.content or ""
            seen["finish"] = choice.finish_reason or seen["finish"]
        seen["usage"] |= bool(chunk.usage and chunk.usage.total_tokens)
    return seen


def pages(page):
    count = 0
    while page is not None:
        count += len(page.result.data)
        page = page.next()
    return count


def endpoints(router, manager):
    def generation():
        made = router.chat.send(model="acme/atlas-70b", messages=[{"role": "user", "content": "hello"}], user="u-1")
        return router.generations.get_generation(id=made.id).data.external_user

    checks = {
        "models": lambda: pages(router.models.list(limit=200, output_modalities="all")),
        "count": lambda: router.models.count(output_modalities="all").data.count,
        "model": lambda: router.models.get(author="~acme", slug="atlas-latest").data.id,
        "endpoints": lambda: len(router.endpoints.list(author="acme", slug="atlas-70b").data.endpoints),
        "zdr": lambda: len(router.endpoints.list_zdr_endpoints().data) > 100,
        "providers": lambda: len(router.providers.list().data),
        "key": lambda: router.api_keys.get_current_key_metadata().data.limit,
        "credits": lambda: manager.credits.get_credits().data.total_credits,
        "noCredits": lambda: router.credits.get_credits(),
        "activity": lambda: len(manager.analytics.get_user_activity().data) > 0,
        "generation": generation,
        "embeddings": lambda: [len(one.embedding) for one in router.embeddings.generate(model="acme/embed-small", input=["a", "b"]).data],
        "embeddingModels": lambda: pages(router.embeddings.list_models()),
        "images": lambda: router.images.generate(model="acme/atlas-image", prompt="sea").data[0].b64_json[:11],
        "imageModels": lambda: len(router.images.list_models().data),
        "rerank": lambda: [one.index for one in router.rerank.rerank(model="acme/rerank-1", query="b", documents=["a", "b"]).results],
        "benchmarks": lambda: len(router.benchmarks.get_benchmarks().data),
        "rankings": lambda: len(router.datasets.get_rankings_daily().data),
        "apps": lambda: pages(router.datasets.get_app_rankings()),
        "tasks": lambda: len(router.classifications.get_task_classifications().data.classifications),
    }
    return {name: outcome(check) for name, check in checks.items()}


asked = json.load(sys.stdin)
client = OpenRouter(api_key=asked["key"], server_url=asked["base"])
manager = OpenRouter(api_key="sk-or-v1-sim-mgmt", server_url=asked["base"])
seen = {case["name"]: outcome(lambda: chat(client, case)) for case in asked["cases"]}
json.dump({"seen": seen, "more": endpoints(client, manager)}, sys.stdout)
