"""A daemon of its own for the demo: a temporary configuration, the ordinary ``vedette run``, gone when we are.

Publishes on ipc sockets in its folder, so that it meets nobody's ports.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from vedette.streamer.birth import die_with_parent
from vedette.streamer.errors import VedetteError

#: How long an ordered stop may take before the daemon is killed, seconds.
STOP_S = 9.0


class Daemon:
    """``vedette run`` on ``cameras``; a context manager. Its log goes to ``log``.

    cameras: as in the configuration. http: listen address or None. More keys (engine...) in ``extra``.
    """

    def __init__(
        self, cameras: dict[str, Any], log: Path, *, http: str | None = None, extra: dict[str, Any] | None = None
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vedette-", ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name)
        self.store = self.folder / "store"
        self.publish = f"ipc://{self.folder}/publish"
        self.config = self.folder / "vedette.yaml"
        alerts = {"publish": self.publish, "replay": f"ipc://{self.folder}/replay", "store": str(self.store)}
        config = {"version": 1, "site": "demo", "cameras": cameras, "alerts": alerts, "http": {"listen": http}}
        self.config.write_text(json.dumps({**config, **(extra or {})}, indent=2))  # JSON is YAML
        self._log = log
        parent = os.getpid()
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vedette.streamer.cli", "run", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                process_group=0,  # a Ctrl-C is for us: we stop it in order
                preexec_fn=lambda: die_with_parent(parent),
            )

    def check(self) -> None:
        """Raise VedetteError with its last words when it has ended by itself."""
        status = self.process.poll()
        if status is not None:
            words = self._log.read_text(errors="replace").strip().splitlines()[-3:]
            raise VedetteError(f"the daemon ended with exit {status}: {' | '.join(words)[-600:]} (log: {self._log})")

    def stop(self) -> int:
        """Stop it in order; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    def __enter__(self) -> Daemon:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._folder.cleanup()
