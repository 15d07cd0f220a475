"""The soak's judge finds a leak of 5 MB an hour within half an hour, and takes no cache for one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

TOOL = Path(__file__).resolve().parents[2] / "tools" / "soak_judge.py"
F64 = NDArray[np.float64]
#: Half an hour, sampled as the soak does.
TIMES_S = np.arange(0.0, 1800.0, 2.0)
#: An hour of the leaking child lasts so long, seconds.
HOUR_S = 40.0
LEAK = """
import sys, time
mb_per_hour, hour_s = float(sys.argv[1]), float(sys.argv[2])
kept, began_s = [], time.monotonic()
while True:
    due = (time.monotonic() - began_s) / hour_s * mb_per_hour * 1e6
    while sum(map(len, kept)) < due:
        kept.append(bytes(range(256)) * 16)
    _ = [bytes(4096) for _ in range(256)]  # and what it gives back
    time.sleep(0.005)
"""


@pytest.fixture(scope="module")
def judge() -> ModuleType:
    """tools/soak_judge.py as a module."""
    spec = importlib.util.spec_from_file_location("soak_judge", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def noise(seed: int) -> F64:
    """What buffers that come and go make of a level, MB."""
    return np.asarray(np.random.default_rng(seed).normal(100.0, 0.15, TIMES_S.size))


def verdicts(judge: ModuleType, growth: F64, seeds: int = 20) -> set[str]:
    """What is said of this growth under noise."""
    return {judge.slope(TIMES_S, noise(seed) + growth).verdict(judge.MOST_EACH) for seed in range(seeds)}


@pytest.mark.parametrize("mb_per_hour", [5.0, 10.0, 100.0])
def test_a_leak_is_found_in_half_an_hour(judge: ModuleType, mb_per_hour: float) -> None:
    """Steady, or in the steps in which glibc grows its heap (132 KB): always ``grows``."""
    steady = mb_per_hour * TIMES_S / 3600
    assert verdicts(judge, steady) == {"grows"}
    assert verdicts(judge, np.floor(steady / 0.132) * 0.132) == {"grows"}


def test_a_leak_is_never_called_level(judge: ModuleType) -> None:
    """On a wandering level, or in rare large steps, it may be too rough to say; then that is said."""
    for seed in range(20):
        wander = np.cumsum(np.random.default_rng(1000 + seed).normal(0.0, 0.01, TIMES_S.size))
        assert "level" not in verdicts(judge, wander + 5.0 * TIMES_S / 3600, 1)
        assert "level" not in verdicts(judge, np.floor(5.0 * TIMES_S / 3600 + seed / 20), 1)


def test_what_fills_and_stays_is_level(judge: ModuleType) -> None:
    """No growth, a step in the first half, and a heap or cache that finds its level are ``level``."""
    assert verdicts(judge, np.zeros(TIMES_S.size)) == {"level"}
    assert verdicts(judge, np.where(TIMES_S > 600, 20.0, 0.0)) == {"level"}
    assert verdicts(judge, 5.0 * (1 - np.exp(-TIMES_S / 120))) == {"level"}


def test_a_short_run_is_not_judged(judge: ModuleType) -> None:
    """Ten minutes say nothing, whatever they look like; too few samples are no slope at all."""
    few = TIMES_S < 600
    assert judge.slope(TIMES_S[few], 100.0 + TIMES_S[few]).verdict(judge.MOST_EACH) == "not judged"
    assert judge.slope(TIMES_S[:40], TIMES_S[:40]) is None
    assert judge.slope([], []) is None
    assert judge.told(None, 2.0) == {"limit": 2.0, "verdict": "not judged"}


@pytest.mark.slow
def test_a_real_process_that_leaks_is_found_and_its_twin_is_not(judge: ModuleType) -> None:
    """Two Python processes allocate and free alike, one keeps 5 MB an hour (an hour of 40 s): half of one is enough."""
    children = {mb: subprocess.Popen([sys.executable, "-c", LEAK, str(mb), str(HOUR_S)]) for mb in (0.0, 5.0)}
    rows: dict[float, list[float]] = {mb: [] for mb in children}
    times_s: list[float] = []
    try:
        began_s = time.monotonic()
        while (elapsed_s := time.monotonic() - began_s) < HOUR_S / 2:
            times_s.append(elapsed_s / HOUR_S * 3600)
            for mb, child in children.items():
                rows[mb].append(psutil.Process(child.pid).memory_info().rss / 1e6)
            time.sleep(0.05)
    finally:
        for child in children.values():
            child.kill()
            child.wait()
    found = {mb: judge.slope(times_s, rss) for mb, rss in rows.items()}
    assert {mb: slope.verdict(judge.MOST_EACH) for mb, slope in found.items()} == {0.0: "level", 5.0: "grows"}, found
    assert 4.0 < found[5.0].per_hour < 6.0
