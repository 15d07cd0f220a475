#!/usr/bin/env python3
"""Turn a run of the fault tests into the Markdown table of tests/faults/README.md.

    pytest -m "slow or not slow" -rP tests/faults | tee run.log
    python tools/fault_table.py run.log

Reads the JSON lines {fault, promise, measured, test} that the tests print; of several about one fault the last counts.
``--write`` puts the table between the markers of tests/faults/README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "tests" / "faults" / "README.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
#: Shown apart from the other measurements, because it is the same promise everywhere.
_COUNTS = ("alerts", "lost", "doubled")


def rows_of(lines: Iterable[str]) -> list[dict[str, Any]]:
    """The tests' lines, the last one of each fault, in order of their first."""
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        if line.startswith('{"fault"'):
            row = json.loads(line)
            found[row["fault"]] = row
    return list(found.values())


def table(rows: Iterable[dict[str, Any]]) -> str:
    """A Markdown table, a row a fault."""
    lines = ["| fault | promise | alerts, lost, doubled | measured | command |", "|---|---|---|---|---|"]
    for row in rows:
        measured = row["measured"]
        counts = ", ".join(str(measured[key]) for key in _COUNTS if key in measured) or "-"
        rest = "; ".join(f"{_words(key)} {_value(value)}" for key, value in measured.items() if key not in _COUNTS)
        command = f"`pytest {row['test']}`"
        lines.append(
            "| " + " | ".join(_cell(x) for x in (row["fault"], row["promise"], counts, rest or "-", command)) + " |"
        )
    return "\n".join(lines) + "\n"


def _words(key: str) -> str:
    return key.removesuffix("_s").replace("_", " ") + (" (s)" if key.endswith("_s") else "")


def _value(value: object) -> str:
    if value is None:
        return "not judged (machine busy with others)"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(part)}" for key, part in value.items())
    if isinstance(value, list):
        return " to ".join(str(part) for part in value)
    return str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", nargs="+", type=Path, help="what pytest -rP printed; several are read in order")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(PAGE.parents[2])}")
    args = parser.parse_args()
    rows = rows_of(line for path in args.run for line in path.read_text().splitlines())
    if not rows:
        print("fault_table: no line of a fault test in there; run pytest with -rP", file=sys.stderr)
        return 1
    text = table(rows)
    if args.write:
        page = PAGE.read_text()
        head, tail = page.split(BEGIN)[0], page.split(END)[1]
        PAGE.write_text(f"{head}{BEGIN}\n{text}{END}{tail}")
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
