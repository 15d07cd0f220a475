"""Bad input never gets more than its documented answer. `make fuzz` runs the same targets for a minute each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutate import MOST_BYTES, Mutator
from tests.fuzz.runner import fuzz
from tests.fuzz.targets import BETWEEN, CORPUS, TARGETS, Target, corpus_of
from vedette.streamer.supervisor import child

ROOT = Path(__file__).resolve().parents[2]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
).map(lambda value: json.dumps(value).encode())
WORDS = st.sampled_from(
    [b"event", b"hello", b"ack", b"acks", b"frame", b"dock", b"live", b"reply", b"process", b"GET / "]
)
INPUT = st.lists(WORDS | JSON | st.binary(max_size=100), max_size=4).map(BETWEEN.join)


@pytest.fixture(scope="module", params=sorted(TARGETS))
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Each door in turn."""
    made = TARGETS[request.param](tmp_path_factory.mktemp("f"))
    yield made
    made.close()


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=INPUT)
def test_any_bytes_get_the_documented_answer(target: Target, data: bytes) -> None:
    """What hypothesis thinks of, made of nothing."""
    assert isinstance(target.run(data), str)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_spoilt_good_input_gets_the_documented_answer(name: str) -> None:
    """The corpus, every input that ever crashed among it, and mutations of it that are always the same."""
    report = fuzz(name, seconds=20, seed=7, most=120)
    assert report["told"] == []
    assert report["tries"] >= len(corpus_of(name))
    assert report["outcomes"] >= 2


def test_every_target_has_a_corpus_and_every_corpus_a_target() -> None:
    """Nothing lies about, nothing starts from nothing."""
    assert sorted(folder.name for folder in CORPUS.iterdir()) == sorted(TARGETS)
    assert all(corpus_of(name) for name in TARGETS)


def test_the_same_seed_makes_the_same_inputs() -> None:
    """A crash can be had again."""
    made = [[Mutator([b'{"a": [1, {"b": 2}]}', b"GET /"], 3).next() for _ in range(1)] for _ in range(2)]
    one, two = Mutator([b'{"a": [1]}', b"x"], 3), Mutator([b'{"a": [1]}', b"x"], 3)
    assert [one.next() for _ in range(200)] == [two.next() for _ in range(200)]
    assert made[0] == made[1]


def test_inputs_stay_short_while_they_are_made() -> None:
    """A list within lists is not multiplied until the fuzzer has no memory, and everybody beside it no processor, left."""
    seed = json.dumps({"a": [[1] * 50] * 50}).encode()
    mutator, longest = Mutator([seed], 5), 0
    for _ in range(3000):
        data = mutator.next()
        longest = max(longest, len(data))
        mutator.keep(data)
    assert len(seed) < longest <= MOST_BYTES
    many = list(range(100))
    assert max(len(json.dumps(mutator._changed(many))) for _ in range(500)) < 10_000


def test_the_fuzzer_sees_a_planted_bug(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the old reader of heartbeats, which took 1e999 for a number, it finds the crash that was fixed, and keeps
    the input."""
    monkeypatch.setattr(child, "load_json", json.loads)
    report = fuzz("heartbeat", seconds=20, seed=1, most=50, keep=tmp_path / "kept")
    assert report["crashes"] >= 1
    assert any("WireError" in crash["crash"] for crash in report["told"])
    assert len(list((tmp_path / "kept").iterdir())) == report["crashes"]


def test_the_tool_prints_its_account() -> None:
    """tools/fuzz.py: JSON, exit 0 without a crash."""
    command = [sys.executable, str(ROOT / "tools" / "fuzz.py"), "--seconds", "0.3", "--target", "mot", "--jobs", "1"]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True)
    report = json.loads(done.stdout)
    assert report["crashes"] == 0
    assert report["tries"] == report["targets"][0]["tries"] > 0
