"""One thread a sink: read what follows its cursor, deliver, remember, and wait for more.

A sink that is down costs a thread that sleeps: nothing queues in memory, the store is the queue.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vedette.streamer.errors import SinkError
from vedette.streamer.log import redact
from vedette.streamer.outbox.reader import OutboxReader
from vedette.streamer.sinks.base import Place, Sink, SinkConfig
from vedette.streamer.sinks.cursor import Cursor

log = logging.getLogger("vedette.sinks")

#: Alerts offered at once; raising it makes catching up faster and a repetition after a crash longer.
BATCH = 100
BATCH_BYTES = 1024 * 1024
#: The cursor is made durable at most this often while alerts flow, seconds.
SAVE_S = 0.5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0


class SinkRunner:
    """Runs one sink until `stop`. longest_pause_s: the longest wait between two tries of a sink that is down. pause:
    waits so many seconds between tries, true when it should stop: an argument, so that an hour can pass in a moment."""

    def __init__(
        self,
        config: SinkConfig,
        store: Path,
        site: str,
        *,
        longest_pause_s: float = LONGEST_PAUSE_S,
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        """Read the cursor and start the thread. Raises StoreError."""
        self.config, self.name = config, config.title()
        self._reader = OutboxReader(store)
        self._cursor = Cursor(store, self.name, self._reader.stream, self._reader.last_seq())
        self._site, self._longest_pause_s = site, longest_pause_s
        self._sink: Sink | None = None
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._pause = pause or self._stopping.wait
        self.state, self.error = "starting", ""
        self.delivered = self.refused = self.skipped = self.failures = 0
        self._last_seq = self._reader.last_seq()
        self._saved_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"sink-{self.name}", daemon=True)
        self._thread.start()

    def wake(self, last_seq: int) -> None:
        """There are alerts up to ``last_seq``."""
        self._last_seq = last_seq
        self._wake.set()

    def status(self) -> dict[str, Any]:
        """For status.hub: name, kind, state (ok, retrying, starting), seq, lag, counters, the last error."""
        seq = self._cursor.seq
        return {
            "name": self.name,
            "kind": self.config.kind,
            "state": self.state,
            "seq": seq,
            "lag": max(0, self._last_seq - seq),
            "delivered": self.delivered,
            "refused": self.refused,
            "skipped": self.skipped,
            "failures": self.failures,
            "error": self.error or None,
        }

    def ask_to_stop(self) -> None:
        """Begin to stop, without waiting for it."""
        self._stopping.set()
        self._wake.set()

    def stop(self, timeout_s: float = 0.3) -> None:
        """Stop after the delivery under way; what it does not finish in time is delivered again."""
        self.ask_to_stop()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        pause_s = 0.0
        try:
            while not (self._pause(pause_s) or self._stopping.is_set()):
                self._wake.clear()
                try:
                    more = self._deliver()
                except (SinkError, OSError, sqlite3.Error) as error:
                    pause_s = self._failed(error, pause_s)
                    continue
                except Exception as error:  # a sink's own fault must not end its delivery for ever
                    log.exception("%s: unexpected", self.name)
                    pause_s = self._failed(error, pause_s)
                    continue
                pause_s = 0.0
                self._save()
                if not more:
                    self._wake.wait(1.0)
        finally:
            self._save(force=True)
            self._let_go()
            self._reader.close()

    def _deliver(self) -> bool:
        """One batch; whether there may be more."""
        page = self._reader.page(self._cursor.seq, BATCH, max_bytes=BATCH_BYTES)
        if page.gap is not None:
            lost = page.gap["last"] - self._cursor.seq
            self.skipped += lost
            log.error("%s: retention removed %d alerts before they could be delivered", self.name, lost)
            self._cursor.seq = page.gap["last"]
        if self._sink is None:
            self._sink = self.config.connect(Place(self._site, page.stream, self._cursor.seq))
        if page.alerts:
            done = self._sink.deliver(page.alerts)
            refused = self._sink.refused()
            self.refused += refused
            self.delivered += done - refused
            self._cursor.seq = page.alerts[done - 1].seq
        if self.state != "ok":
            log.info("%s: delivering", self.name)
        self.state, self.error = "ok", ""
        return self._cursor.seq < page.last_seq

    def _failed(self, error: Exception, pause_s: float) -> float:
        """Count, log once a state, and choose the next pause: doubled, with jitter, or what the other side asks."""
        self.failures += 1
        text = redact(str(error))[:300]
        if self.state != "retrying" or self.error != text:
            log.warning("%s: %s; trying again", self.name, text)
        self.state, self.error = "retrying", text
        self._let_go()
        asked_s = error.retry_after_s if isinstance(error, SinkError) else None
        if asked_s is not None:
            return asked_s
        return min(self._longest_pause_s, max(FIRST_PAUSE_S, pause_s * 2)) * random.uniform(0.8, 1.2)

    def _let_go(self) -> None:
        if self._sink is not None:
            sink, self._sink = self._sink, None
            try:
                sink.close()
            except (SinkError, OSError) as error:
                log.warning("%s: while closing: %s", self.name, redact(str(error)))

    def _save(self, *, force: bool = False) -> None:
        now_s = time.monotonic()
        caught_up = self._cursor.seq >= self._last_seq
        if self._cursor.saved != self._cursor.seq and (force or caught_up or now_s - self._saved_s >= SAVE_S):
            self._cursor.save()
            self._saved_s = now_s
