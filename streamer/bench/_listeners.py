"""Real subscribers for `vedette bench alerts`: many `subscribe` iterators in a few processes, and what they heard."""

from __future__ import annotations

import multiprocessing
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Subscribers in one process; each has a thread and a context of its own.
TOGETHER = 13
#: Seconds the last alert may take after everything was sent.
PATIENCE_S = 120.0

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Heard:
    """last_s: f64 [N], when the slowest subscriber was given each alert (monotonic seconds). cpu_s: of all of them."""

    last_s: F64
    gapless: bool
    replays: int
    cpu_s: float


class Listeners:
    """``count`` subscribers of a hub whose store is empty; entered when each of them is connected."""

    def __init__(self, endpoint: str, count: int, most: int) -> None:
        """endpoint: the hub's publish address. most: alerts that will be published at most."""
        self._spawn = multiprocessing.get_context("spawn")
        self._given: Any = self._spawn.Array("q", count, lock=False)
        self._counts = np.frombuffer(self._given, np.int64)
        self._pipes, self._processes = [], []
        for first in range(0, count, TOGETHER):
            ours, theirs = self._spawn.Pipe()
            slots = range(first, min(first + TOGETHER, count))
            args = (endpoint, slots, self._given, most, theirs)
            process = self._spawn.Process(target=_listen, args=args, daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Listeners:
        for pipe in self._pipes:
            if pipe.recv() != "ready":
                raise RuntimeError("a subscriber could not begin")
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.join(2)
            process.kill()

    def given(self) -> int:
        """How many alerts the slowest subscriber has been given."""
        return int(self._counts.min())

    def finish(self, total: int) -> Heard:
        """Wait until every subscriber was given ``total`` alerts. Raises RuntimeError when one was not in time."""
        for pipe in self._pipes:
            pipe.send(total)
        told = [pipe.recv() for pipe in self._pipes]
        if any(isinstance(answer, str) for answer in told):
            raise RuntimeError(next(answer for answer in told if isinstance(answer, str)))
        return Heard(
            np.max([np.frombuffer(raw) for raw, *_ in told], axis=0),
            all(gapless for _, gapless, *_ in told),
            sum(replays for _, _, replays, _ in told),
            sum(cpu_s for *_, cpu_s in told),
        )


def _listen(endpoint: str, slots: range, given: Any, most: int, pipe: Connection) -> None:
    """A process of subscribers."""
    from vedette.streamer.client import subscribe

    stop = threading.Event()
    counts, last_s = np.frombuffer(given, np.int64), np.zeros(most)
    wrong: list[int] = []
    subscriptions = [subscribe(endpoint) for _ in slots]

    def hear(slot: int, subscription: Any) -> None:
        while not stop.is_set():
            alert = subscription.next(0.2)
            if alert is None:
                continue
            number = int(counts[slot])
            if alert["seq"] != number + 1:
                wrong.append(alert["seq"])
            last_s[number] = time.monotonic()
            counts[slot] = number + 1

    threads = [threading.Thread(target=hear, args=pair) for pair in zip(slots, subscriptions, strict=True)]
    for thread in threads:
        thread.start()
    while any(subscription.stream is None for subscription in subscriptions):
        time.sleep(0.02)
    began_s = time.process_time()
    pipe.send("ready")
    total = int(pipe.recv())
    deadline = time.monotonic() + PATIENCE_S
    mine = counts[slots.start : slots.stop]
    while mine.min() < total and time.monotonic() < deadline:
        time.sleep(0.01)
    cpu_s = time.process_time() - began_s
    stop.set()
    for thread in threads:
        thread.join()
    if mine.min() < total:
        pipe.send(f"a subscriber was given {mine.min()} of {total} alerts within {PATIENCE_S} s")
    else:
        replays = sum(subscription.replays for subscription in subscriptions)
        pipe.send((last_s[:total].tobytes(), not wrong, replays, cpu_s))
