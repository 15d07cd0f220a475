"""From received events to committed alerts: pictures first, then one transaction, and patience when the disk is full."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from vedette.streamer.outbox.diskguard import DiskGuard, is_disk_trouble
from vedette.streamer.outbox.records import Boot, Draft, Outcome, Picture
from vedette.streamer.outbox.snapshots import Snapshots, looks_like_clip, looks_like_jpeg
from vedette.streamer.outbox.store import Outbox
from vedette.streamer.types import Event

log = logging.getLogger("vedette.committer")

#: Events held in memory while the disk takes nothing, and the bytes of their pictures.
MOST_HELD = 10_000
MOST_HELD_BYTES = 64 * 1024 * 1024
#: What the pictures of one commit may take, seconds: on a disk that is slower the rest of its alerts go without. With
#: the pictures under way and the rows it stays below what the supervisor forgives (hub.SLOW_DISK_S).
PICTURES_S = 8.0
#: Pictures written at once, at first and at most.
FIRST_AT_ONCE, MOST_AT_ONCE = 8, 512
#: Tries to free space within one commit; each frees a few megabytes or the reserve.
_RELIEFS = 4


@dataclass(slots=True)
class Arrival:
    """An event as it came, and whom to tell when it is committed. jpeg: its picture, or its clip (mp4); may be empty."""

    event: Event
    jpeg: bytes
    sender: bytes

    @property
    def key(self) -> tuple[str, int]:
        """What makes it one telling."""
        return self.event.id, self.event.rev


@dataclass(slots=True)
class Greeting:
    """A producer's hello."""

    producer: str
    boot: str


class Committer:
    """Takes arrivals in order; what cannot be committed now is held, in order, and tried again.

    counters: ``held_dropped`` events that found the holding full (their producer keeps them and sends again),
    ``pictures_lost`` by reason in their own keys, ``commits``, ``duplicates``, ``interrupted``.
    """

    def __init__(
        self,
        outbox: Outbox,
        snapshots: Snapshots,
        guard: DiskGuard,
        counters: Counter[str],
        *,
        most_held: int = MOST_HELD,
        most_held_bytes: int = MOST_HELD_BYTES,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbox, self._snapshots, self._guard = outbox, snapshots, guard
        self._most_held, self._most_held_bytes = most_held, most_held_bytes
        self.counters = counters
        self.trouble: str | None = None
        self._told: set[str] = set()  # of this trouble, each once
        self._queue: list[Arrival | Greeting] = []
        self._keys: set[tuple[str, int]] = set()
        self._bytes = 0
        self._pictures: dict[tuple[str, int], Picture] = {}
        self._now_s = now_s
        self._at_once = FIRST_AT_ONCE

    @property
    def held(self) -> int:
        """Events in memory that are not committed."""
        return len(self._keys)

    def offer(self, item: Arrival | Greeting) -> bool:
        """Queue an item for the next `commit`; False when it found no room (an event is offered again later)."""
        if isinstance(item, Greeting):
            if item not in self._queue:
                self._queue.append(item)
            return True
        key = item.key
        if key in self._keys:
            return True
        if len(self._keys) >= self._most_held:
            self.counters["held_dropped"] += 1
            return False
        if item.jpeg and not (looks_like_jpeg(item.jpeg) or looks_like_clip(item.jpeg)):
            self.counters["pictures_malformed"] += 1
            item.jpeg = b""
        if self._bytes + len(item.jpeg) > self._most_held_bytes:
            self.counters["pictures_dropped"] += 1
            item.jpeg = b""
        self._bytes += len(item.jpeg)
        self._keys.add(key)
        self._queue.append(item)
        return True

    def commit(self) -> tuple[Outcome, list[Arrival]]:
        """Commit everything queued, or nothing; the outcome and the arrivals that may be acknowledged."""
        if not self._queue:
            return Outcome(), []
        self._write_pictures()
        for attempt in range(_RELIEFS + 1):
            try:
                outcome = self._outbox.commit([self._draft(item) for item in self._queue])
            except (sqlite3.Error, OSError) as error:
                self._note(error)
                if attempt < _RELIEFS and is_disk_trouble(error) and self._guard.relieve():
                    continue
                return Outcome(), []
            return outcome, self._finish(outcome)
        raise AssertionError("unreachable: the last attempt returns")

    def _draft(self, item: Arrival | Greeting) -> Draft | Boot:
        if isinstance(item, Greeting):
            return Boot(item.producer, item.boot)
        # a clip is told long after the picture that its event is about: no latency of ours
        return Draft(item.event, self._pictures.get(item.key), timed="clip" not in item.event.explain)

    def _write_pictures(self) -> None:
        """Write what is not written yet. The alert matters more than its picture: when the disk takes none even
        after making room once, or takes too long, the alerts are committed without, unless they have to be held anyway."""
        wanted = [
            item
            for item in self._queue
            if isinstance(item, Arrival) and item.jpeg and item.key not in self._pictures and not self._known(item)
        ]
        until_s, relieved = self._now_s() + PICTURES_S, False
        while wanted and self._now_s() < until_s:
            some, began_s = wanted[: self._at_once], self._now_s()
            try:
                self._write(some)
            except OSError as error:
                self._note(error)
                if not is_disk_trouble(error):
                    self._write_singly(some)
                elif relieved or not self._guard.relieve():
                    return
                else:
                    relieved = True
                    continue
            wanted = wanted[len(some) :]
            self._pace(self._now_s() - began_s)
        if wanted:
            log.warning("the disk is slow: %d alerts go without their picture", len(wanted))

    def _pace(self, took_s: float) -> None:
        """As many pictures at once as the disk takes in about a second: together they are cheaper."""
        if took_s < 0.25:
            self._at_once = min(MOST_AT_ONCE, self._at_once * 2)
        elif took_s > 1.0:
            self._at_once = max(4, self._at_once // 2)

    def _known(self, item: Arrival) -> bool:
        try:
            return self._outbox.known(*item.key)
        except sqlite3.Error:  # a store that cannot be read: the commit will say so
            return False

    def _write(self, wanted: list[Arrival]) -> None:
        pictures = self._snapshots.write_all([(item.event, item.jpeg) for item in wanted])
        self._pictures.update(zip((item.key for item in wanted), pictures, strict=True))

    def _write_singly(self, wanted: list[Arrival]) -> None:
        """Something is wrong with one of them; it must not cost the others."""
        for item in wanted:
            try:
                self._write([item])
            except OSError as error:
                self._note(error)

    def _finish(self, outcome: Outcome) -> list[Arrival]:
        arrivals = [item for item in self._queue if isinstance(item, Arrival)]
        if self.trouble is not None:
            log.warning("the store takes alerts again; %d were held", len(arrivals))
        self.trouble = None
        self._told.clear()
        stored = {(alert.id, alert.rev) for alert in outcome.stored}
        self.counters["pictures_unwritten"] += sum(
            1 for item in arrivals if item.jpeg and item.key in stored and item.key not in self._pictures
        )
        self.counters["commits"] += 1
        self.counters["alerts"] += len(outcome.stored)
        self.counters["duplicates"] += outcome.duplicates
        self.counters["interrupted"] += outcome.interrupted
        self._queue, self._keys, self._pictures, self._bytes = [], set(), {}, 0
        return arrivals

    def _note(self, error: Exception) -> None:
        self.counters["store_errors"] += 1
        # without the path: it is another one for every picture
        text = f"{type(error).__name__}: {error.strerror if isinstance(error, OSError) else error}"
        if text not in self._told:
            self._told.add(text)
            log.error("the store does not take %d events: %s", self.held, text)
        self.trouble = text
