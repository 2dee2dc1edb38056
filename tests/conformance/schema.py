"""The official schema of a revision: what is wrong with a message, and what of it the revision does not have.

As much of JSON Schema as those files use. `schemas/` holds them as they were published, with their licence.
Not a program of its own.
"""

import functools
import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
TYPES = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int, "number": (int, float),
}
RESULTS = {
    "initialize": "InitializeResult", "ping": "EmptyResult", "logging/setLevel": "EmptyResult",
    "resources/subscribe": "EmptyResult", "resources/unsubscribe": "EmptyResult", "completion/complete": "CompleteResult",
    "tools/list": "ListToolsResult", "tools/call": "CallToolResult", "prompts/list": "ListPromptsResult",
    "prompts/get": "GetPromptResult", "resources/list": "ListResourcesResult", "resources/read": "ReadResourceResult",
    "resources/templates/list": "ListResourceTemplatesResult",
}
# Where a member is meant that the revision has not, rather than one that the schema leaves to whoever writes.
CLOSED = (
    "Tool", "Prompt", "PromptArgument", "Resource", "ResourceTemplate", "CallToolResult", "TextContent", "ImageContent",
    "AudioContent", "ResourceLink", "EmbeddedResource", "Implementation",
)


class Schema:
    """The schema of one revision."""

    def __init__(self, revision):
        whole = json.loads((HERE / "schemas" / f"{revision}.json").read_text())
        self.types = whole.get("$defs") or whole["definitions"]

    def of_message(self, message, method):
        """What is wrong with a message of a server's; `method` is that of the request it answers."""
        if "method" in message:
            kind = "ServerRequest" if "id" in message else "ServerNotification"
            return self.check({"$ref": f"#/x/{kind}"}, message, "")
        if "error" in message:
            error = "JSONRPCErrorResponse" if "JSONRPCErrorResponse" in self.types else "JSONRPCError"
            # `id` is null, or left out, where no request could be told.
            whole = message if message.get("id") is not None else {**message, "id": 0}
            return self.check({"$ref": f"#/x/{error}"}, whole, "")
        return self.check({"$ref": f"#/x/{RESULTS[method]}"}, message.get("result"), "result")

    def check(self, schema, value, place):
        """The faults, each as a text; a union has those of its best member."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            faults = self.check(self.types[name], value, place)
            if name in CLOSED and isinstance(value, dict):
                strange = set(value) - set(self.types[name]["properties"])
                faults += [f"{place}.{member}: the revision has none" for member in sorted(strange)]
            return faults
        if "anyOf" in schema:
            return min((self.check(one, value, place) for one in schema["anyOf"]), key=len)
        faults = [fault for one in schema.get("allOf", ()) for fault in self.check(one, value, place)]
        return faults + self.plain(schema, value, place)

    def plain(self, schema, value, place):
        kinds = schema.get("type", ())
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if kinds and not any(fits(value, kind) for kind in kinds):
            return [f"{place}: {value!r} is no {' or '.join(kinds)}"]
        if "const" in schema and value != schema["const"]:
            return [f"{place}: {value!r} is not {schema['const']!r}"]
        if "enum" in schema and value not in schema["enum"]:
            return [f"{place}: {value!r} is none of {schema['enum']}"]
        if isinstance(value, list) and "items" in schema:
            items = enumerate(value)
            return [fault for index, one in items for fault in self.check(schema["items"], one, f"{place}[{index}]")]
        return self.members(schema, value, place) if isinstance(value, dict) else []

    def members(self, schema, value, place):
        faults = [f"{place}: no {name!r}" for name in schema.get("required", ()) if name not in value]
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name, one in value.items():
            inner = known.get(name, others if isinstance(others, dict) else {})
            faults += self.check(inner, one, f"{place}.{name}")
        return faults


def fits(value, kind):
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, TYPES[kind]) or (kind == "integer" and isinstance(value, float) and value.is_integer())


@functools.cache
def of(revision):
    return Schema(revision)
