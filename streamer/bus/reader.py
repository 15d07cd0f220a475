"""The infer side of the frames link: receives, keeps the newest frame a camera and returns credits."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import zmq

from vedette.streamer import wire
from vedette.streamer.bus.link import MAX_MESSAGE, tune, waiting
from vedette.streamer.bus.mailbox import Lease, Mailbox, Slot, Snapshot
from vedette.streamer.endpoint import bind
from vedette.streamer.errors import WireError
from vedette.streamer.types import CAMERA_NAME

log = logging.getLogger("vedette.bus")


#: A consumer that is away for longer than this has its mailbox kept by the follower thread, seconds. The thread looks
#: this often: to tell it each time would cost every frame more than all its looks do.
FOLLOW_AFTER_S = 0.01
#: Messages taken in under one lock.
MOST_AT_ONCE = 512


class FrameReader:
    """The infer side: binds the frames link and keeps the newest frame a camera.

    Whoever waits in `take` receives by itself, so that no frame waits for a thread to be scheduled; while nobody
    does, a thread follows the link, so that nothing gets old. All share one lock that is never held while waiting.

    listen: further endpoints (``tcp://...``) for cameras of other hosts; frames that come in there must carry their
    pixels, and get this host's ``mono_ns`` at receipt.
    """

    def __init__(self, run_dir: Path | str, boot: str, *, listen: Sequence[str] = ()) -> None:
        self.boot = boot
        self._run_dir = Path(run_dir)
        self._lock = threading.RLock()
        self._mailbox = Mailbox(self._run_dir, boot, self._pay, self._give_back)
        self._woken = False
        self._closed = False
        self._taking = False
        self._takes = 0
        self._bell_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._context = zmq.Context()
        self._home: dict[bytes, zmq.Socket[bytes]] = {}
        self._sockets: list[zmq.Socket[bytes]] = []
        self._local = self._bind(wire.ipc(self._run_dir, wire.FRAMES))
        os.chmod(self._run_dir / wire.FRAMES, 0o660)
        self._remote = [self._bind(endpoint) for endpoint in listen]
        self._wait_fds, self._follow_fds = select.poll(), select.poll()
        self._wait_fds.register(self._bell_fd, select.POLLIN)
        for socket in self._sockets:
            for waiter in (self._wait_fds, self._follow_fds):
                waiter.register(socket.getsockopt(zmq.FD), select.POLLIN)  # type: ignore[arg-type]
        self._thread = threading.Thread(target=self._follow, name="frames", daemon=True)
        self._thread.start()

    @property
    def drops(self) -> dict[tuple[str, str], int]:
        """Frames and messages that were dropped so far, by (camera, reason).

        Reasons: superseded, stale_boot, bad_ring, malformed, oversized. An unknown sender counts as camera "".
        """
        with self._lock:
            return dict(self._mailbox.drops)

    @property
    def snapshots(self) -> deque[Snapshot]:
        """Cut pictures that arrived, oldest first; take them with ``popleft``. `take` returns early when one comes."""
        return self._mailbox.snapshots

    def take(self, max_batch: int, wait_s: float, *, fill_s: float = 0.0) -> list[Lease]:
        """At most ``max_batch`` leases, one a camera, the longest-waiting camera first; [] after ``wait_s``.

        Returns as soon as one frame is there; with ``fill_s`` it then waits at most that long for more (larger
        batches, later answers). Returns early and empty when a snapshot arrived or `wake` was called. One thread only.
        """
        self._taking = True
        self._takes += 1
        try:
            with self._lock:
                self._drain()
            self._wait_until(lambda: bool(self._mailbox.waiting or self._mailbox.snapshots), wait_s)
            if fill_s > 0 and self._mailbox.waiting:
                self._wait_until(lambda: len(self._mailbox.waiting) >= max_batch, fill_s)
            with self._lock:
                self._woken = False
                return self._mailbox.pop(max_batch)
        finally:
            self._taking = False

    def wake(self) -> None:
        """End a `take` that is waiting in another thread."""
        self._woken = True
        self._ring_bell()

    def cut(
        self,
        camera: str,
        key: str,
        mono_ns: int,
        box: Sequence[float] | None = None,
        clip: tuple[float, float] | None = None,
    ) -> None:
        """Ask a camera for its picture of that moment (clip: for a film, seconds before and after); the answer comes to
        `snapshots`, empty when it is gone."""
        sides = None if box is None else [float(v) for v in box]
        body = wire.encode({"key": key, "mono_ns": mono_ns, "box": sides, "clip": clip})
        with self._lock:
            if not self._send(camera, [b"cut", body]):
                self._mailbox.snapshots.append(Snapshot(camera, key, mono_ns, None))
                self._ring_bell()
            self._drain_for_others()

    def tell_calm(self, camera: str, *, calm: bool) -> None:
        """Tell a camera whether anything is in doubt about its pictures; one that is away is not told."""
        with self._lock:
            self._send(camera, [b"calm", wire.encode({"calm": calm})])
            self._drain_for_others()

    def forget(self, camera: str) -> None:
        """Drop what waits of a camera that was removed; leases already taken stay valid."""
        with self._lock:
            self._mailbox.forget(camera)

    def close(self) -> None:
        """Stop the thread and unbind. Leases and their pixels stay valid; their credits go nowhere."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.wake()
        self._thread.join(timeout=5)
        with self._lock:
            self._mailbox.close()
            self._context.destroy(linger=0)
            os.close(self._bell_fd)

    def _bind(self, endpoint: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.ROUTER)
        tune(socket)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a restarted camera takes its name over at once
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # a cut for a camera that is away fails now, not by time-out
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE)
        self._sockets.append(socket)
        bind(socket, endpoint, "frames link")
        return socket

    def _wait_until(self, done: Callable[[], bool], wait_s: float) -> None:
        """Receive until ``done``, woken, closed or ``wait_s`` has passed."""
        end = time.monotonic() + wait_s
        while not (done() or self._woken or self._closed) and (left_s := end - time.monotonic()) > 0:
            rung = self._wait_fds.poll(max(1, round(left_s * 1000)))
            with self._lock:
                if not self._closed and any(fd == self._bell_fd for fd, _ in rung):
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._bell_fd)
                self._drain()

    def _follow(self) -> None:
        """The thread: while nobody takes, receive, so that the newest frame waits and credits go back."""
        try:
            seen = -1
            while not self._closed:
                time.sleep(FOLLOW_AFTER_S)
                if self._taking or seen != self._takes:
                    seen = self._takes
                    continue
                while not (self._taking or self._closed):
                    with self._lock:
                        self._drain_for_others()
                    self._follow_fds.poll(50)
        except Exception:
            log.exception("the frames link stopped")
            raise

    def _ring_bell(self) -> None:
        with contextlib.suppress(OSError):  # closed: nobody is there to hear it
            os.eventfd_write(self._bell_fd, 1)

    def _drain_for_others(self) -> None:
        """The sockets' descriptors are edge-triggered: who eats an edge outside `take` tells the one inside."""
        if self._drain():
            self._ring_bell()

    def _drain(self) -> bool:
        """Take in every waiting message; whether there was one. The lock is held."""
        news = False
        if not self._closed:
            for socket in self._sockets:
                for _ in range(MOST_AT_ONCE):
                    if not waiting(socket):
                        break
                    news = True
                    self._receive(socket, socket.recv_multipart(zmq.NOBLOCK))
                else:
                    self._ring_bell()  # a flood: come back, but let others have the lock
        return news

    def _receive(self, socket: zmq.Socket[bytes], parts: list[bytes]) -> None:
        camera = parts[0].decode("ascii", "replace")
        try:
            if CAMERA_NAME.fullmatch(camera) is None:
                camera = ""
                raise WireError("bus: the sender has no camera name")
            self._home[parts[0]] = socket
            self._accept(camera, parts[1:], inline=socket is not self._local)
        except (WireError, KeyError, TypeError, ValueError) as error:
            oversized = any(len(part) > wire.MAX_JSON for part in parts[1:3])
            self._mailbox.drops[camera, "oversized" if oversized else "malformed"] += 1
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
                self._mailbox.drops[camera, "stale_boot"] += 1
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
            snapshot = Snapshot(camera, str(message["key"]), int(message["mono_ns"]), parts[2] or None)
            self._mailbox.snapshots.append(snapshot)
        else:
            raise WireError(f"bus: unknown kind {kind!r:.40}")

    def _answer(self, camera: str, sent: int, incarnation: str) -> None:
        held = self._mailbox.held(camera, incarnation)
        self._send(camera, [b"boot", wire.encode({"boot": self.boot, "sent": sent, "held": held})])

    def _give_back(self, slot: Slot) -> None:
        with self._lock:
            if not self._closed and self._mailbox.free(slot):
                self._drain_for_others()  # sending may have eaten the edge of what came in

    def _pay(self, slot: Slot) -> None:
        camera, incarnation, number = slot
        body = {"incarnation": incarnation, "boot": self.boot, "slots": [number]}
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
