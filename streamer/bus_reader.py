"""The infer side of the frames link: a thread that receives, keeps the newest frame a camera and returns credits."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import zmq

from vedette.streamer import wire
from vedette.streamer.buslink import MAX_MESSAGE, Cut, tune
from vedette.streamer.errors import WireError
from vedette.streamer.mailbox import Lease, Mailbox, Snapshot
from vedette.streamer.types import CAMERA_NAME

log = logging.getLogger("vedette.bus")


class FrameReader:
    """The infer side: binds the frames link, receives in a thread, keeps the newest frame a camera.

    listen: further endpoints (``tcp://...``) for cameras of other hosts; frames that come in there must carry their
    pixels, and get this host's ``mono_ns`` at receipt.
    """

    def __init__(self, run_dir: Path | str, boot: str, *, listen: Sequence[str] = ()) -> None:
        self.boot = boot
        self._run_dir = Path(run_dir)
        self._mailbox = Mailbox(self._run_dir, boot, self._ring_bell)
        self._commands: deque[tuple[str, list[bytes], Cut | None]] = deque()
        self._closing = False
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._poller.register(self._wake_fd, zmq.POLLIN)
        self._home: dict[bytes, zmq.Socket[bytes]] = {}
        self._local = self._bind(wire.ipc(self._run_dir, wire.FRAMES))
        os.chmod(self._run_dir / wire.FRAMES, 0o660)
        self._remote = [self._bind(endpoint) for endpoint in listen]
        self._thread = threading.Thread(target=self._run, name="frames", daemon=True)
        self._thread.start()

    @property
    def drops(self) -> dict[tuple[str, str], int]:
        """Frames and messages that were dropped so far, by (camera, reason).

        Reasons: superseded, stale_boot, bad_ring, malformed, oversized. An unknown sender counts as camera "".
        """
        return self._mailbox.drops()

    @property
    def snapshots(self) -> deque[Snapshot]:
        """Cut pictures that arrived, oldest first; take them with ``popleft``. `take` returns early when one comes."""
        return self._mailbox.snapshots

    def take(self, max_batch: int, wait_s: float, *, fill_s: float = 0.0) -> list[Lease]:
        """At most ``max_batch`` leases, one a camera, the longest-waiting camera first; [] after ``wait_s``.

        Returns as soon as one frame is there; with ``fill_s`` it then waits at most that long for more (larger
        batches, later answers). Returns early and empty when a snapshot arrived or `wake` was called.
        """
        return self._mailbox.take(max_batch, wait_s, fill_s)

    def wake(self) -> None:
        """End a `take` that is waiting in another thread."""
        self._mailbox.wake()

    def cut(self, camera: str, key: str, mono_ns: int, box: Sequence[float] | None = None) -> None:
        """Ask a camera for its picture of that moment; the answer comes to `snapshots`, empty when it is gone."""
        body = wire.encode({"key": key, "mono_ns": mono_ns, "box": None if box is None else [float(v) for v in box]})
        self._commands.append((camera, [b"cut", body], Cut(key, mono_ns)))
        self._ring_bell()

    def forget(self, camera: str) -> None:
        """Drop what waits of a camera that was removed; leases already taken stay valid."""
        self._mailbox.forget(camera)

    def close(self) -> None:
        """Stop the thread and unbind. Leases and their pixels stay valid; their credits go nowhere."""
        if self._closing:
            return
        self._closing = True
        self._ring_bell()
        self._thread.join(timeout=5)
        self._mailbox.wake()
        os.close(self._wake_fd)

    def _ring_bell(self) -> None:
        with contextlib.suppress(OSError):  # closed: nobody is there to hear it
            os.eventfd_write(self._wake_fd, 1)

    def _bind(self, endpoint: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.ROUTER)
        tune(socket)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a restarted camera takes its name over at once
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # a cut for a camera that is away fails now, not by time-out
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE)
        socket.bind(endpoint)
        self._poller.register(socket, zmq.POLLIN)
        return socket

    def _run(self) -> None:
        try:
            while not self._closing:
                for ready, _ in self._poller.poll():
                    if ready == self._wake_fd:
                        with contextlib.suppress(BlockingIOError):
                            os.eventfd_read(self._wake_fd)
                    else:
                        self._receive(ready)
                self._send_waiting()
        except Exception:
            log.exception("the frames link stopped")
            raise
        finally:
            self._context.destroy(linger=0)

    def _receive(self, socket: zmq.Socket[bytes]) -> None:
        for _ in range(64):  # then look at the bell again
            try:
                parts = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            camera = parts[0].decode("ascii", "replace")
            try:
                if CAMERA_NAME.fullmatch(camera) is None:
                    camera = ""
                    raise WireError("bus: the sender has no camera name")
                self._home[parts[0]] = socket
                self._accept(camera, parts[1:], inline=socket is not self._local)
            except (WireError, KeyError, TypeError, ValueError) as error:
                oversized = any(len(part) > wire.MAX_JSON for part in parts[1:3])
                self._mailbox.count(camera, "oversized" if oversized else "malformed")
                log.debug("a message from camera %r is malformed: %s", camera, error)

    def _accept(self, camera: str, parts: list[bytes], *, inline: bool) -> None:
        if len(parts) < 2:
            raise WireError(f"bus: needs [kind, json, ...], got {len(parts)} parts")
        kind = parts[0]
        if kind == b"frame":
            header = wire.parse(wire.FrameHeader, parts[1])
            if header.camera != camera or header.slot is None or (inline and header.ring is not None):
                raise WireError(f"bus: frame of {header.camera!r}, slot {header.slot}, ring {header.ring!r}")
            if header.boot != self.boot:
                self._mailbox.count(camera, "stale_boot")
                self._answer(camera, -1, header.incarnation)
            else:
                self._mailbox.put(header, parts[2:])
        elif kind == b"hello":
            message = wire.decode(parts[1])
            self._answer(camera, int(message["sent"]), str(message["incarnation"]))
        elif kind == b"snapshot":
            message = wire.decode(parts[1])
            if len(parts) != 3 or len(parts[2]) > wire.MAX_JPEG:
                raise WireError("bus: a snapshot needs one picture")
            self._mailbox.post(Snapshot(camera, str(message["key"]), int(message["mono_ns"]), parts[2] or None))
        else:
            raise WireError(f"bus: unknown kind {kind!r:.40}")

    def _answer(self, camera: str, sent: int, incarnation: str) -> None:
        held = self._mailbox.held(camera, incarnation)
        self._send(camera, [b"boot", wire.encode({"boot": self.boot, "sent": sent, "held": held})])

    def _send_waiting(self) -> None:
        while self._commands:
            camera, message, cut = self._commands.popleft()
            if not self._send(camera, message) and cut is not None:
                self._mailbox.post(Snapshot(camera, cut.key, cut.mono_ns, None))
        for (camera, incarnation), slots in self._mailbox.released().items():
            body = {"incarnation": incarnation, "boot": self.boot, "slots": slots}
            self._send(camera, [b"credit", wire.encode(body)])

    def _send(self, camera: str, message: list[bytes]) -> bool:
        identity = camera.encode()
        try:
            self._home.get(identity, self._local).send_multipart([identity, *message], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True
