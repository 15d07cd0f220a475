"""The alert store's file: its tables, and how a connection to it is opened."""

from __future__ import annotations

import sqlite3
from pathlib import Path

DATABASE = "alerts.db"
#: Version of the tables below.
LAYOUT = 1

TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alerts (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL, rev INTEGER NOT NULL, camera TEXT NOT NULL, kind TEXT NOT NULL,
    phase TEXT NOT NULL, committed_s REAL NOT NULL, body BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS alerts_by_id ON alerts (id, rev);
CREATE INDEX IF NOT EXISTS alerts_by_camera ON alerts (camera, seq);
CREATE TABLE IF NOT EXISTS pictures (seq INTEGER PRIMARY KEY, path TEXT NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS cameras (camera TEXT PRIMARY KEY, last_seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS producers (producer TEXT PRIMARY KEY, boot TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS incidents (
    id TEXT PRIMARY KEY, producer TEXT NOT NULL, boot TEXT NOT NULL, event TEXT NOT NULL) WITHOUT ROWID;
"""


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode: transactions are opened by hand. Raises sqlite3.Error."""
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0, check_same_thread=False)
