"""The alert store's database: SQLite in WAL mode, fsync at every commit, one writer.

An event is *raised* when its row is committed here. ``seq`` comes from a counter row in the same transaction,
so it is gapless from 1 for the life of the store, whose UUID is the ``stream``. Only the hub writes; readers
(`OutboxReader`) have their own connections.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from vedette.streamer.alert import alert_from_event, encode_alert, interrupted
from vedette.streamer.errors import StoreError
from vedette.streamer.outbox.batch import Batch
from vedette.streamer.outbox.database import DATABASE, LAYOUT, TABLES, connect
from vedette.streamer.outbox.records import Boot, Draft, Evidence, Outcome
from vedette.streamer.types import Event

log = logging.getLogger("vedette.outbox")

#: Dead lives of producers that are remembered, so that what still arrives of them does not stay open.
MOST_RETIRED = 256
#: Incidents looked up by one statement.
LOOKED_UP = 64
#: Pages of the WAL (4 KiB each) before SQLite copies them into the database. Raise: fewer pauses, longer ones.
CHECKPOINT_PAGES = 4096
#: A total latency beyond this says that two clocks were compared, not that an alert took so long.
MAX_TOTAL_MS = 24 * 3600 * 1000.0

_KNOWN_IDS = f"SELECT DISTINCT id FROM alerts WHERE id IN ({','.join('?' * LOOKED_UP)})"

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


class Outbox:
    """The writer. Every `commit` is one transaction and, on a disk that tells the truth, one fsync."""

    def __init__(self, store: Path, *, site: str) -> None:
        """Open or create the database in folder ``store``. Raises StoreError."""
        self.path = store / DATABASE
        self.site = site
        self.last_seq = 0
        self.camera_seq: dict[str, int] = {}
        self._retired: dict[tuple[str, str], None] = {}
        self._doubtful = False
        self._open()

    def _open(self) -> None:
        try:
            self._db = connect(self.path)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA journal_size_limit=16777216")
            self._db.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
            self._db.execute("PRAGMA cache_size=-16384")
            with self._transaction():
                for statement in TABLES.split(";\n"):
                    self._db.execute(statement)
                self._db.execute("INSERT OR IGNORE INTO meta VALUES ('layout', ?)", (str(LAYOUT),))
                self._db.execute("INSERT OR IGNORE INTO meta VALUES ('stream', ?)", (str(uuid.uuid4()),))
                self._db.execute("INSERT OR IGNORE INTO counter VALUES ('seq', 0), ('floor', 0)")
            meta = dict(self._db.execute("SELECT key, value FROM meta"))
            self._load()
        except sqlite3.Error as error:
            raise StoreError(
                f"alerts.store: {self.path}: {error}; make the folder writable, or move a damaged file away"
            ) from error
        if meta["layout"] != str(LAYOUT):
            raise StoreError(f"{self.path}: layout {meta['layout']}, this version reads {LAYOUT}; use another store")
        self.stream: str = meta["stream"]

    def _load(self) -> None:
        counters = dict(self._db.execute("SELECT name, value FROM counter"))
        self.last_seq, self.floor = counters["seq"], counters["floor"]
        self.camera_seq = dict(self._db.execute("SELECT camera, last_seq FROM cameras"))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def known(self, event_id: str, rev: int) -> bool:
        """Whether this telling of the incident is committed (and not yet removed by retention)."""
        return self._db.execute("SELECT 1 FROM alerts WHERE id=? AND rev=?", (event_id, rev)).fetchone() is not None

    def commit(
        self,
        items: Sequence[Draft | Boot],
        *,
        wall_s: Callable[[], float] = time.time,
        mono_ns: Callable[[], int] = time.monotonic_ns,
    ) -> Outcome:
        """Make every item durable in one transaction, or none of them.

        Raises sqlite3.Error, or what is wrong with an item; then nothing changed, here and on disk.
        """
        if self._doubtful:
            self._mend()
        batch = Batch(self.last_seq, dict(self.camera_seq))
        try:
            with self._transaction():
                batch.known_ids = self._ids_among({item.event.id for item in items if isinstance(item, Draft)})
                for item in items:
                    if isinstance(item, Boot):
                        self._begin_boot(item, batch, wall_s(), mono_ns())
                    else:
                        self._insert(item, batch, wall_s(), mono_ns())
                batch.write(self._db)
        except sqlite3.Error:
            with contextlib.suppress(StoreError):  # the disk does not even take that now: the next commit tries again
                self.reopen()
            raise
        self.last_seq, self.camera_seq = batch.last_seq, batch.camera_seq
        return batch.outcome

    def _ids_among(self, ids: set[str]) -> set[str]:
        """Which of these incidents the store has heard of: most are new, and need no further look."""
        ordered = list(ids)
        found: set[str] = set()
        for first in range(0, len(ordered), LOOKED_UP):
            some = ordered[first : first + LOOKED_UP]
            some += some[:1] * (LOOKED_UP - len(some))  # always the same statement, so it stays prepared
            found.update(row[0] for row in self._db.execute(_KNOWN_IDS, some))
        return found

    def _insert(self, draft: Draft, batch: Batch, wall_s: float, mono_ns: int) -> None:
        event = draft.event
        old = event.id in batch.known_ids
        if (event.id, event.rev) in batch.keys or (old and self.known(event.id, event.rev)):
            batch.outcome.duplicates += 1
            return
        evidence = batch.shown.get(event.id) or (self._evidence_of(event.id) if old else None)
        if draft.picture:
            evidence = draft.picture.evidence(evidence)
        total_ms = _total_ms(event.mono_ns, mono_ns) if draft.timed else None
        body = encode_alert(
            alert_from_event(
                event,
                site=self.site,
                stream=self.stream,
                seq=batch.last_seq + 1,
                prev=batch.camera_seq.get(event.camera),
                evidence=evidence,
                total_ms=total_ms,
            )
        )
        batch.add(event, wall_s, body, draft.picture, evidence, total_ms)
        self._follow(event, batch)
        if batch.incidents.get(event.id) is not None and (event.producer, event.boot) in self._retired:
            self._interrupt(event, batch, wall_s, mono_ns)  # a dead life's last words came after its heir's hello

    def _evidence_of(self, event_id: str) -> Evidence | None:
        """What the newest telling of the incident shows, when that is still there: a telling without its own shows it."""
        row = self._db.execute(
            "SELECT body FROM alerts JOIN pictures USING (seq) WHERE id=? ORDER BY rev DESC LIMIT 1", (event_id,)
        ).fetchone()
        evidence: Evidence | None = None if row is None else json.loads(row[0])["evidence"]
        return evidence

    def _interrupt(self, event: Event, batch: Batch, wall_s: float, mono_ns: int) -> None:
        end = interrupted(event, mono_ns=mono_ns, wall_s=wall_s)
        self._insert(Draft(end, timed=False), batch, wall_s, mono_ns)
        batch.outcome.interrupted += 1

    def _follow(self, event: Event, batch: Batch) -> None:
        """Remember the incident while it is open."""
        if event.phase == "end":
            batch.ended.add(event.id)
            batch.incidents[event.id] = None
            return
        ended = event.id in batch.ended
        if not ended and event.id in batch.known_ids:
            query = "SELECT 1 FROM alerts WHERE id=? AND phase='end'"
            ended = self._db.execute(query, (event.id,)).fetchone() is not None
        if not ended:  # a finished clip may arrive later as an update; that does not open the incident again
            row = (event.id, event.producer, event.boot, _EVENT.dump_json(event).decode())
            batch.incidents[event.id] = row

    def _begin_boot(self, boot: Boot, batch: Batch, wall_s: float, mono_ns: int) -> None:
        if (boot.producer, boot.boot) in self._retired:
            return  # a dead life's hello came after its heir's
        batch.write(self._db)  # what came before the hello in this batch may be what is left open
        before = self.boot_of(boot.producer)
        if before is not None and before != boot.boot:
            self._retired[boot.producer, before] = None
            if len(self._retired) > MOST_RETIRED:
                del self._retired[next(iter(self._retired))]
        self._db.execute("INSERT OR REPLACE INTO producers VALUES (?,?)", (boot.producer, boot.boot))
        left_open = self._db.execute(
            "SELECT event FROM incidents WHERE producer=? AND boot<>? ORDER BY id", (boot.producer, boot.boot)
        ).fetchall()
        for (raw,) in left_open:
            event = _EVENT.validate_json(raw)
            batch.known_ids.add(event.id)
            self._interrupt(event, batch, wall_s, mono_ns)

    def boot_of(self, producer: str) -> str | None:
        """The boot in which the producer was last seen."""
        row = self._db.execute("SELECT boot FROM producers WHERE producer=?", (producer,)).fetchone()
        return row and str(row[0])

    def oldest(self, limit: int) -> list[tuple[int, float]]:
        """(seq, when it was committed) of the oldest alerts."""
        return self._db.execute("SELECT seq, committed_s FROM alerts ORDER BY seq LIMIT ?", (limit,)).fetchall()

    def known_time_s(self) -> float | None:
        """The newest time (UNIX seconds) that this store is known to have lived through, None when it is new."""
        noted = self._db.execute("SELECT value FROM meta WHERE key='time_s'").fetchone()
        if noted is not None:
            return float(noted[0])
        newest = self._db.execute("SELECT committed_s FROM alerts ORDER BY seq DESC LIMIT 1").fetchone()
        return newest and float(newest[0])

    def note_time(self, wall_s: float) -> None:
        """Remember a time lived through. Raises sqlite3.Error."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('time_s', ?)", (repr(wall_s),))

    def remove_through(self, seq: int) -> None:
        """Forget the alerts up to ``seq``; whoever asks for them is told of the gap. Raises sqlite3.Error."""
        with self._transaction():
            self._db.execute("DELETE FROM alerts WHERE seq<=?", (seq,))
            self._db.execute("DELETE FROM pictures WHERE seq<=?", (seq,))
            self._db.execute("UPDATE counter SET value=max(value, ?) WHERE name='floor'", (seq,))
        self.floor = max(self.floor, seq)

    def oldest_pictures(self, limit: int, through: int | None = None) -> list[tuple[int, str, int]]:
        """(seq, path, bytes) of the oldest pictures, of alerts up to ``through``."""
        query = "SELECT seq, path, bytes FROM pictures WHERE seq<=? ORDER BY seq LIMIT ?"
        return self._db.execute(query, (2**62 if through is None else through, limit)).fetchall()

    def forget_pictures(self, through: int) -> None:
        """Forget the pictures of the alerts up to ``through``. Raises sqlite3.Error."""
        with self._transaction():
            self._db.execute("DELETE FROM pictures WHERE seq<=?", (through,))

    def has_picture_in(self, folder: str) -> bool:
        """Whether an alert has its picture in that folder (relative to the store)."""
        bounds = (f"{folder}/", f"{folder}0")  # 0 follows / in ASCII
        return self._db.execute("SELECT 1 FROM pictures WHERE path>? AND path<?", bounds).fetchone() is not None

    def picture_bytes(self) -> int:
        """What the pictures together take."""
        return int(self._db.execute("SELECT coalesce(sum(bytes), 0) FROM pictures").fetchone()[0])

    def database_bytes(self) -> int:
        """What the rows take; pages that are free again do not count."""
        pages, free, size = (
            int(self._db.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    def reopen(self) -> None:
        """Start again from what is on disk, after an error that leaves the connection in doubt. Raises StoreError when the
        disk does not take that; then every `commit` begins by trying again."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        self._doubtful = True
        self._open()
        self._doubtful = False

    def _mend(self) -> None:
        try:
            self.reopen()
        except StoreError as error:
            raise sqlite3.OperationalError(str(error)) from error

    def close(self) -> None:
        """Close; SQLite folds the WAL into the database."""
        self._db.close()


def _total_ms(decoded_ns: int, now_ns: int) -> float | None:
    total_ms = (now_ns - decoded_ns) / 1e6
    return total_ms if 0 <= total_ms <= MAX_TOTAL_MS else None
