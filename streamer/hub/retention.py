"""How long alerts and pictures stay: by age, then by size, oldest first, a little at a time.

What is removed is a range from the beginning, so one number, the floor, tells readers of the gap.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from vedette.streamer.config.schema import RetentionSection
from vedette.streamer.hub.agingclock import AgingClock
from vedette.streamer.outbox.snapshots import EVIDENCE
from vedette.streamer.outbox.store import Outbox

log = logging.getLogger("vedette.retention")

DAY_S = 86400.0
#: Alerts or pictures looked at in one step; the hub's loop goes on between steps.
CHUNK = 250
#: Seconds between notes of what time it is in the store: an fsync each; what is lost of it ages later, never sooner.
NOTE_S = 600.0


class Retention:
    """Keeps the store within ``section``. wall_s, mono_s: clocks, arguments so that tests can move them.

    removed_alerts, removed_pictures: how many went.
    """

    def __init__(
        self,
        outbox: Outbox,
        store: Path,
        section: RetentionSection,
        *,
        wall_s: Callable[[], float] = time.time,
        mono_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbox, self._store, self._section = outbox, store, section
        known_s = outbox.known_time_s()
        self._clock = AgingClock(wall_s() if known_s is None else known_s, wall_s=wall_s, mono_s=mono_s)
        self._noted_s = 0.0
        self.removed_alerts = self.removed_pictures = 0

    def step(self) -> bool:
        """One small step; True when another is due at once. Raises sqlite3.Error when the disk takes no more."""
        now_s = self._clock.now_s()
        if self._clock.believed_s >= self._noted_s + NOTE_S:
            self._outbox.note_time(self._clock.believed_s)
            self._noted_s = self._clock.believed_s
        cutoff_s = now_s - self._section.days * DAY_S
        if self._remove_older(cutoff_s):
            return True
        self._remove_stray_days(cutoff_s)
        return self._shrink()

    def _remove_older(self, cutoff_s: float) -> bool:
        old = 0
        for seq, committed_s in self._outbox.oldest(CHUNK):
            if committed_s >= cutoff_s:
                break
            old = seq
        if not old:
            return False
        self._remove_alerts(old)
        return True

    def _remove_alerts(self, through: int) -> None:
        while pictures := self._outbox.oldest_pictures(CHUNK, through):
            self._remove_pictures(pictures)
        self.removed_alerts += through - self._outbox.floor
        self._outbox.remove_through(through)

    def _remove_pictures(self, pictures: list[tuple[int, str, int]]) -> None:
        """Files first: a row without a file is looked at again, a file without a row would stay for ever."""
        for _, path, _ in pictures:
            (self._store / path).unlink(missing_ok=True)
        self._outbox.forget_pictures(pictures[-1][0])
        self.removed_pictures += len(pictures)

    def _shrink(self) -> bool:
        """Below ``max_gb``: pictures go first; when none is left, alerts."""
        most = self._section.max_gb * 1e9
        excess = self._outbox.picture_bytes() + self._outbox.database_bytes() - most
        pictures = self._outbox.oldest_pictures(CHUNK)
        # a full disk deletes files behind our back: their rows go first, they free nothing
        gone = list(itertools.takewhile(lambda row: not (self._store / row[1]).exists(), pictures))
        if gone:
            self._outbox.forget_pictures(gone[-1][0])
            return True
        if excess <= 0:
            return False
        if not pictures:
            oldest = self._outbox.oldest(CHUNK)
            if len(oldest) < CHUNK:  # so little is not worth a gap; the database's own minimum
                return False
            self._remove_alerts(oldest[-1][0])
            return True
        freed, last = 0, 0
        for last, (_, _, nbytes) in enumerate(pictures, 1):  # noqa: B007 - used after the loop
            freed += nbytes
            if freed >= excess:
                break
        self._remove_pictures(pictures[:last])
        return True

    def _remove_stray_days(self, cutoff_s: float) -> None:
        """Whole days before the cutoff hold only pictures whose alert was never committed."""
        first_kept = datetime.fromtimestamp(max(0.0, cutoff_s - DAY_S), UTC).strftime("%Y-%m-%d")
        for day in (self._store / EVIDENCE).glob("*/????-??-??"):
            if day.name < first_kept and not self._outbox.has_picture_in(str(day.relative_to(self._store))):
                shutil.rmtree(day, ignore_errors=True)
