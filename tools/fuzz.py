#!/usr/bin/env python3
"""Throw bad input at every door for a while: tries, distinct outcomes and crashes as JSON; exit 1 on a crash.

    tools/fuzz.py --seconds 60 [--target http --target config] [--jobs 2] [--seed 1]

Inputs grow from tests/fuzz/corpus: whatever leads to an outcome that was not seen yet is mutated further. A crash is any
exception that is not the product's documented answer; its input is written to --keep, is what belongs into the corpus
together with the fix, and is run first the next time.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.fuzz.runner import fuzz
from tests.fuzz.targets import TARGETS


def _task(task: tuple[str, float, int, Path | None]) -> dict[str, Any]:
    logging.getLogger().addHandler(logging.NullHandler())  # what is refused is also logged
    name, seconds, seed, keep = task
    return fuzz(name, seconds, seed, keep and keep / name)


def main() -> int:
    """Run the targets side by side; JSON to standard output."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target (default 60)")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="only this one; may be repeated")
    parser.add_argument("--jobs", type=int, default=2, help="targets side by side (default 2)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same inputs (default 1)")
    parser.add_argument("--keep", type=Path, help="folder for inputs that crash")
    args = parser.parse_args()
    tasks = [(name, args.seconds, args.seed, args.keep) for name in args.target or sorted(TARGETS)]
    with multiprocessing.get_context("spawn").Pool(args.jobs, maxtasksperchild=1) as pool:
        rows = pool.map(_task, tasks, chunksize=1)
    total = {what: sum(row[what] for row in rows) for what in ("tries", "outcomes", "crashes")}
    json.dump({"seed": args.seed, **total, "targets": rows}, sys.stdout, indent=2)
    print()
    for row in rows:  # said last, where a log that is cut keeps it
        for crash in row["told"]:
            print("{target}: {crash}: {says}\n  input {input}".format(target=row["target"], **crash), file=sys.stderr)
    return 1 if total["crashes"] else 0


if __name__ == "__main__":
    sys.exit(main())
