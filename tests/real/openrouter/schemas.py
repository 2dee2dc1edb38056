"""Whether what the simulator sends and is sent is what the types of PyPI's `openrouter` allow, which are newer than those of npm."""

import json
import sys

import pydantic
from openrouter import components, operations


def wrong(schema, value):
    """What is wrong with a payload, if anything is."""
    # Where both have a name, that of the operation is the whole answer.
    kind = getattr(operations, schema, None) or getattr(components, schema, None)
    if kind is None:
        return f"there is no {schema}"
    try:
        pydantic.TypeAdapter(kind).validate_python(value)
    except pydantic.ValidationError as why:
        return str(why)[:600]
    return None


json.dump([wrong(one["schema"], one["value"]) for one in json.load(sys.stdin)], sys.stdout)
