"""Where a sink stopped: a small file, replaced whole, that survives whatever kills the hub."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from vedette.streamer.jsontext import load_json

log = logging.getLogger("vedette.sinks")

FOLDER = "sinks"


class Cursor:
    """The last seq that is done with, in ``sinks/<name>.json`` of the store.

    A sink that is new begins with what happens from now on (``newest``); a cursor of another stream begins at 0
    of this one; a damaged one too: at least once. The file is written at once, so that a crash before the first
    delivery forgets nothing.
    """

    def __init__(self, store: Path, name: str, stream: str, newest: int) -> None:
        self._path = store / FOLDER / f"{name}.json"
        self._stream = stream
        self._path.parent.mkdir(exist_ok=True, mode=0o750)
        self.seq = self.saved = self._read(newest)
        self.save()

    def _read(self, newest: int) -> int:
        try:
            said = load_json(self._path.read_bytes())
            return int(said["seq"]) if said["stream"] == self._stream else 0
        except FileNotFoundError:
            return newest
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error("%s cannot be read (%s); everything the store holds is delivered again", self._path, error)
            return 0

    def save(self) -> None:
        """Make the present value durable; a disk that does not take it is no reason to stop (at least once)."""
        staged = self._path.with_suffix(".tmp")
        try:
            with staged.open("w", encoding="utf-8") as file:
                json.dump({"stream": self._stream, "seq": self.seq}, file)
                file.flush()
                os.fsync(file.fileno())
            staged.replace(self._path)
            self.saved = self.seq
        except OSError as error:
            log.warning("%s: the cursor could not be saved: %s", self._path, error)
