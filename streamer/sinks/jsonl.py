"""Alerts appended to a file, one JSON object a line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Annotated, Literal

from pydantic import Field

from vedette.streamer.errors import SinkError
from vedette.streamer.jsontext import load_json
from vedette.streamer.outbox.records import Stored
from vedette.streamer.sinks.base import Place, SinkConfig

#: How far back the end of the file is searched for the last whole line, bytes.
_TAIL = 1024 * 1024


class JsonlConfig(SinkConfig):
    """path: the file; it is created when absent and only ever appended to."""

    kind: Literal["jsonl"] = "jsonl"
    path: Annotated[str, Field(min_length=1)]

    def connect(self, place: Place) -> JsonlSink:
        """Open the file. Raises SinkError."""
        return JsonlSink(Path(self.path), place.stream)


class JsonlSink:
    """fsync after every batch. The last line says where to go on, so a crash repeats nothing.

    A line that a crash cut short is removed; the file may be renamed away (logrotate), a new one is begun.
    """

    def __init__(self, path: Path, stream: str) -> None:
        """Open or create; parents are not created: a missing mount must not be written beneath."""
        self._path, self._stream = path, stream
        self._file: IO[bytes] | None = None
        self._last_seq = 0
        self._open()

    def _open(self) -> None:
        try:
            self._file = self._path.open("a+b")
            self._inode = os.fstat(self._file.fileno()).st_ino
            self._last_seq = max(self._last_seq, self._repair())
        except OSError as error:
            self.close()
            raise SinkError(f"jsonl: {self._path}: {error}") from error

    def _repair(self) -> int:
        """Cut a half-written last line off; the seq of the last whole one when it is of this stream."""
        assert self._file is not None
        size = self._file.seek(0, os.SEEK_END)
        start = max(0, size - _TAIL)
        self._file.seek(start)
        tail = self._file.read()
        whole = tail.rfind(b"\n") + 1
        if whole < len(tail) and (whole or start == 0):
            self._file.truncate(start + whole)
        last = tail[:whole].rstrip(b"\n").rpartition(b"\n")[2]
        try:
            alert = load_json(last)
            return int(alert["seq"]) if alert["stream"] == self._stream else 0
        except (ValueError, TypeError, KeyError):
            return 0  # somebody else's line: nothing to learn from it

    def deliver(self, alerts: Sequence[Stored]) -> int:
        """Append and fsync. Raises SinkError."""
        try:
            if self._file is None or self._rotated():
                self.close()
                self._open()
            assert self._file is not None
            fresh = [alert for alert in alerts if alert.seq > self._last_seq]
            self._file.write(b"".join(alert.body + b"\n" for alert in fresh))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            self.close()  # what was half written is repaired when it is opened again
            raise SinkError(f"jsonl: {self._path}: {error}") from error
        self._last_seq = alerts[-1].seq
        return len(alerts)

    def _rotated(self) -> bool:
        try:
            return self._path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def refused(self) -> int:
        """A file refuses nothing."""
        return 0

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError as error:  # buffered bytes that a full disk did not take; they are offered again
                raise SinkError(f"jsonl: {self._path}: {error}") from error
