"""Reading the outbox from any thread or process: pages of alerts after a cursor, gaps told, sizes bounded."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vedette.streamer.errors import StoreError
from vedette.streamer.outbox.database import DATABASE, connect
from vedette.streamer.outbox.records import Stored
from vedette.streamer.outbox.snapshots import EVIDENCE

#: Most alerts and bytes in one page.
PAGE_LIMIT = 1000
PAGE_BYTES = 4 * 1024 * 1024

_COLUMNS = "seq, camera, kind, id, rev, body"


@dataclass(frozen=True, slots=True)
class Page:
    """Alerts after a cursor, seen in one snapshot of the store.

    last_seq: newest alert in the store, 0 when there is none. first_seq: oldest one still kept, last_seq + 1
    when none is. gap: the range after the cursor that retention removed, or None. through: the cursor for the
    next page; with a camera filter it may lie beyond the last alert given.
    """

    stream: str
    last_seq: int
    first_seq: int
    through: int
    gap: dict[str, Any] | None = None
    alerts: list[Stored] = field(default_factory=list)


class OutboxReader:
    """A read-only connection, safe to share between threads."""

    def __init__(self, store: Path) -> None:
        """Open the database of an existing store. Raises StoreError."""
        self._store = store
        self._lock = threading.Lock()
        try:
            self._db = connect(store / DATABASE, read_only=True)
            (self.stream,) = self._db.execute("SELECT value FROM meta WHERE key='stream'").fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"{store / DATABASE}: cannot be read: {error}") from error

    def page(
        self,
        since: int,
        limit: int = PAGE_LIMIT,
        *,
        camera: str | Collection[str] | None = None,
        max_bytes: int = PAGE_BYTES,
    ) -> Page:
        """Alerts with ``seq > since``, oldest first, at most ``limit`` and about ``max_bytes`` (but at least one).

        camera: only of this one, or of these.
        """
        limit = max(1, min(limit, PAGE_LIMIT))
        cameras = (camera,) if isinstance(camera, str) else camera
        with self._lock:
            self._db.execute("BEGIN")
            try:
                counters = dict(self._db.execute("SELECT name, value FROM counter"))
                some = "" if cameras is None else f"camera IN ({','.join('?' * len(cameras))}) AND "
                query = f"SELECT {_COLUMNS} FROM alerts WHERE {some}seq>? ORDER BY seq LIMIT ?"
                alerts: list[Stored] = []
                size, full = 0, False
                for row in self._db.execute(query, (*(cameras or ()), since, limit)):
                    full = bool(alerts) and size + len(row[5]) > max_bytes
                    if full:
                        break
                    alerts.append(Stored(*row))
                    size += len(row[5])
            finally:
                self._db.execute("COMMIT")
        last, floor = counters["seq"], counters["floor"]
        gap = {"first": since + 1, "last": floor, "reason": "retention"} if since < floor else None
        through = alerts[-1].seq if full or len(alerts) == limit else max(since, last)
        return Page(self.stream, last, floor + 1, through, gap, alerts)

    def alert(self, seq: int) -> Stored | None:
        """One alert, or None."""
        with self._lock:
            row = self._db.execute(f"SELECT {_COLUMNS} FROM alerts WHERE seq=?", (seq,)).fetchone()
        return None if row is None else Stored(*row)

    def evidence(self, seq: int, what: Literal["snapshot", "clip"]) -> Path | None:
        """The file that an alert shows, or None when it never had one; retention may have removed it.

        Never a path outside the evidence folder, whatever the database says or a link in the folder leads to.
        """
        with self._lock:
            row = self._db.execute("SELECT body FROM alerts WHERE seq=?", (seq,)).fetchone()
        name = None if row is None else json.loads(row[0])["evidence"].get(what)
        if not isinstance(name, str):
            return None
        path = (self._store / name).resolve()
        return path if path.is_relative_to((self._store / EVIDENCE).resolve()) else None

    def last_seq(self) -> int:
        """The newest alert's seq, 0 when there is none."""
        with self._lock:
            row = self._db.execute("SELECT value FROM counter WHERE name='seq'").fetchone()
        return int(row[0])

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._db.close()
