#!/usr/bin/env python3
"""The table of docs/protocol.md that says which client can be asked what by which backend.

    tests/real/run WAYSTATION --part questions     measures, and fails when the table says something else
    tests/real/matrix.py                           writes what was measured last into the table
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "protocol.md"
# Under target/ because it is of one run, like everything there.
MEASURED = ROOT / "target" / "input-requests.json"
BEGIN, END = "<!-- matrix: written by tests/real/matrix.py -->", "<!-- end of matrix -->"

KINDS = {"form": "elicitation, form", "url": "elicitation, URL", "model": "sampling", "roots": "roots"}
BACKENDS = {
    "legacy-stdio": "2025-11-25, stdio",
    "legacy-http": "2025-11-25, Streamable HTTP",
    "legacy-sse": "2025-11-25, HTTP+SSE",
    "modern-stdio": "2026-07-28, stdio",
    "modern-http": "2026-07-28, Streamable HTTP",
}


def table(cells):
    """Markdown of {(client, kind, backend): "works" or the reason why not}; clients in the order of their first cell."""
    reasons = []

    def cell(outcome):
        if outcome == "works":
            return outcome
        if outcome not in reasons:
            reasons.append(outcome)
        return f"refused[^{reasons.index(outcome) + 1}]"

    lines = [["client", "is asked for", *BACKENDS.values()], ["---"] * (2 + len(BACKENDS))]
    for client in dict.fromkeys(client for client, _, _ in cells):
        for kind, words in KINDS.items():
            outcomes = [cells.get((client, kind, backend), "was not measured") for backend in BACKENDS]
            lines.append([client, words, *map(cell, outcomes)])
    rows = [f"| {' | '.join(line)} |" for line in lines]
    notes = [f"[^{number}]: {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join(rows + ([""] + notes if notes else [])) + "\n"


def remember(cells):
    MEASURED.parent.mkdir(exist_ok=True)
    MEASURED.write_text(json.dumps([[*place, outcome] for place, outcome in cells.items()], indent=1))


def committed():
    """The table as the page has it, or nothing."""
    text = PAGE.read_text() if PAGE.exists() else ""
    _, begin, rest = text.partition(f"{BEGIN}\n\n")
    inside, end, _ = rest.partition(f"\n{END}")
    return inside if begin and end else None


def write():
    if not MEASURED.exists():
        sys.exit(f"nothing was measured yet:{__doc__}")
    if committed() is None:
        sys.exit(f"{PAGE} has no place for the table: the lines {BEGIN!r} and {END!r}, each with an empty one inside")
    cells = {tuple(place): outcome for *place, outcome in json.loads(MEASURED.read_text())}
    text = PAGE.read_text()
    head, tail = text.split(f"{BEGIN}\n\n")[0], text.split(f"\n{END}")[1]
    PAGE.write_text(f"{head}{BEGIN}\n\n{table(cells)}\n{END}{tail}")


if __name__ == "__main__":
    write()
