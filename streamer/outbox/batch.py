"""One commit in the making."""

from __future__ import annotations

import sqlite3

from vedette.streamer.outbox.records import Evidence, Outcome, Picture, Stored
from vedette.streamer.types import Event


class Batch:
    """One transaction in the making: what its rows will be, so that SQLite is asked little and written to once."""

    def __init__(self, last_seq: int, camera_seq: dict[str, int]) -> None:
        self.outcome = Outcome()
        self.last_seq, self.camera_seq = last_seq, camera_seq
        self.known_ids: set[str] = set()  # incidents that were in the store before
        self.keys: set[tuple[str, int]] = set()
        self.ended: set[str] = set()
        self.shown: dict[str, Evidence] = {}  # by incident
        self.incidents: dict[str, tuple[str, str, str, str] | None] = {}  # None: no longer open
        self._alerts: list[tuple[object, ...]] = []
        self._pictures: list[tuple[int, str, int]] = []
        self._cameras: dict[str, int] = {}

    def add(
        self,
        event: Event,
        wall_s: float,
        body: bytes,
        picture: Picture | None,
        evidence: Evidence | None,
        total_ms: float | None,
    ) -> None:
        """The next alert. picture: what it brings itself; evidence: all that it shows."""
        seq = self.last_seq = self.camera_seq[event.camera] = self._cameras[event.camera] = self.last_seq + 1
        self._alerts.append((seq, event.id, event.rev, event.camera, event.kind, event.phase, wall_s, body))
        self.keys.add((event.id, event.rev))
        if evidence:
            self.shown[event.id] = evidence
            path, nbytes = (picture.path, picture.nbytes) if picture else (evidence["snapshot"] or evidence["clip"], 0)
            self._pictures.append((seq, str(path), nbytes))
        if total_ms is not None:
            self.outcome.total_ms.append(total_ms)
        self.outcome.stored.append(Stored(seq, event.camera, event.kind, event.id, event.rev, body))

    def write(self, db: sqlite3.Connection) -> None:
        """Write what was not written yet, inside the caller's transaction."""
        opened = [row for row in self.incidents.values() if row is not None]
        closed = [(event_id,) for event_id, row in self.incidents.items() if row is None]
        for statement, rows in (
            ("INSERT INTO alerts VALUES (?,?,?,?,?,?,?,?)", self._alerts),
            ("INSERT INTO pictures VALUES (?,?,?)", self._pictures),
            ("INSERT OR REPLACE INTO cameras VALUES (?,?)", list(self._cameras.items())),
            ("INSERT OR REPLACE INTO incidents VALUES (?,?,?,?)", opened),
            ("DELETE FROM incidents WHERE id=?", closed),
        ):
            if rows:
                db.executemany(statement, rows)
        if self._alerts:
            db.execute("UPDATE counter SET value=? WHERE name='seq'", (self.last_seq,))
        self._alerts, self._pictures, self._cameras, self.incidents = [], [], {}, {}
