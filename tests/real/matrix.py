#!/usr/bin/env python3
"""The tables of docs/protocol.md that are measured: which client can be asked what by which backend, and what becomes of
tasks between which client and which backend.

    tests/real/run WAYSTATION --part questions     measures, and fails when the table says something else
    tests/real/run WAYSTATION --part tasks         the same for tasks
    tests/real/matrix.py                           writes what was measured last into the tables
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "protocol.md"

KINDS = {"form": "elicitation, form", "url": "elicitation, URL", "model": "sampling", "roots": "roots"}
BACKENDS = {
    "legacy-stdio": "2025-11-25, stdio",
    "legacy-http": "2025-11-25, Streamable HTTP",
    "legacy-sse": "2025-11-25, HTTP+SSE",
    "modern-stdio": "2026-07-28, stdio",
    "modern-http": "2026-07-28, Streamable HTTP",
}
JOBS = {
    "at-once": "is done at once",
    "soon": "is done soon",
    "late": "takes too long",
    "fails": "fails",
    "crashes": "ends with an error of JSON-RPC",
    "asks": "asks",
    "asks-twice": "asks two things at once",
    "asks-first": "asks before it begins",
    "declined": "asks, and is declined",
    "cancelled": "is cancelled",
}
TASKERS = {
    "v1-stdio": "2025-11-25 with tasks, stdio",
    "v1-http": "2025-11-25 with tasks, Streamable HTTP",
    "v2-http": "2026-07-28 with the extension",
    "plain-legacy": "2025-11-25 without tasks",
    "plain-modern": "2026-07-28 without tasks",
}


class Table:
    """A table of {(client, row, column): "works" or the reason why not}."""

    def __init__(self, name, head, rows, columns):
        # The footnotes of a page share their numbers, so these have the name of their table.
        self.name, self.head, self.rows, self.columns = name, head, rows, columns
        # Under target/ because it is of one run, like everything there.
        self.measured = ROOT / "target" / f"{name}.json"
        self.begin, self.end = f"<!-- {name}: written by tests/real/matrix.py -->", f"<!-- end of {name} -->"

    def text(self, cells):
        """Markdown; clients in the order of their first cell."""
        reasons = []

        def cell(outcome):
            if outcome == "works":
                return outcome
            if outcome not in reasons:
                reasons.append(outcome)
            return f"refused[^{self.name}-{reasons.index(outcome) + 1}]"

        lines = [["client", self.head, *self.columns.values()], ["---"] * (2 + len(self.columns))]
        for client in dict.fromkeys(client for client, _, _ in cells):
            for row, words in self.rows.items():
                outcomes = [cells.get((client, row, column), "was not measured") for column in self.columns]
                lines.append([client, words, *map(cell, outcomes)])
        rows = [f"| {' | '.join(line)} |" for line in lines]
        notes = [f"[^{self.name}-{number}]: {reason}" for number, reason in enumerate(reasons, 1)]
        return "\n".join(rows + ([""] + notes if notes else [])) + "\n"

    def remember(self, cells):
        self.measured.parent.mkdir(exist_ok=True)
        self.measured.write_text(json.dumps([[*place, outcome] for place, outcome in cells.items()], indent=1))

    def committed(self):
        """The table as the page has it, or nothing."""
        text = PAGE.read_text() if PAGE.exists() else ""
        _, begin, rest = text.partition(f"{self.begin}\n\n")
        inside, end, _ = rest.partition(f"\n{self.end}")
        return inside if begin and end else None

    def check(self, tally, cells):
        """What is written is what was measured."""
        self.remember(cells)
        same = self.committed() == self.text(cells)
        tally.check(f"the table {self.name} of docs/protocol.md is what was measured", same, "tests/real/matrix.py writes it anew")

    def write(self):
        if self.committed() is None:
            sys.exit(f"{PAGE} has no place for a table: the lines {self.begin!r} and {self.end!r}, each with an empty one inside")
        cells = {tuple(place): outcome for *place, outcome in json.loads(self.measured.read_text())}
        text = PAGE.read_text()
        head, tail = text.split(f"{self.begin}\n\n")[0], text.split(f"\n{self.end}")[1]
        PAGE.write_text(f"{head}{self.begin}\n\n{self.text(cells)}\n{self.end}{tail}")


QUESTIONS = Table("questions", "is asked for", KINDS, BACKENDS)
TASKS = Table("tasks", "and a call that", JOBS, TASKERS)


def main():
    measured = [table for table in (QUESTIONS, TASKS) if table.measured.exists()]
    if not measured:
        sys.exit(f"nothing was measured yet:{__doc__}")
    for table in measured:
        table.write()


if __name__ == "__main__":
    main()
