"""The loop of the fuzzer: mutate, run, keep what is new, write down what crashes."""

from __future__ import annotations

import hashlib
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from tests.fuzz.mutate import Mutator
from tests.fuzz.targets import SCRATCH, TARGETS, corpus_of

#: Crashes told in full; more are only counted.
MOST_TOLD = 5


def fuzz(name: str, seconds: float, seed: int, keep: Path | None = None, most: int | None = None) -> dict[str, Any]:
    """One target for so long, or for ``most`` tries."""
    seeds = corpus_of(name)
    mutator, outcomes, crashes, tries = Mutator(seeds, seed), set[str](), dict[str, dict[str, str]](), 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vedette-fuzz-", dir=SCRATCH) as folder:
        target = TARGETS[name](Path(folder))
        try:
            while time.monotonic() - began < seconds and (most is None or tries < most + len(seeds)):
                data = seeds[tries] if tries < len(seeds) else mutator.next()
                tries += 1
                try:
                    outcome = target.run(data)
                except Exception as error:  # noqa: BLE001 this is what is looked for
                    _note(crashes, error, data, keep)
                    target.close()
                    target = TARGETS[name](Path(tempfile.mkdtemp(dir=folder)))
                    continue
                if outcome not in outcomes:
                    outcomes.add(outcome)
                    mutator.keep(data)
        finally:
            target.close()
    wall_s = time.monotonic() - began
    return {
        "target": name,
        "seconds": round(wall_s, 1),
        "tries": tries,
        "tries_per_s": round(tries / wall_s),
        "outcomes": len(outcomes),
        "crashes": len(crashes),
        "told": list(crashes.values())[:MOST_TOLD],
    }


def _note(crashes: dict[str, dict[str, str]], error: Exception, data: bytes, keep: Path | None) -> None:
    """A crash is known by its type and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = next((f for f in reversed(frames) if "/site-packages/" not in f.filename), frames[-1])
    key = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
    if key not in crashes:
        crashes[key] = {"crash": key, "says": str(error)[:200], "input": repr(data[:300])}
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
