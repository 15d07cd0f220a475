"""The infer process's loop with its real engine, sockets and rings; only the camera and the hub are played here."""

from __future__ import annotations

import json
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zmq

from vedette.streamer import wire
from vedette.streamer.bus import FrameWriter
from vedette.streamer.bus.ring import Ring, create_ring, slot_bytes_for
from vedette.streamer.capture.letterbox import draw_letterbox
from vedette.streamer.infer.role import run
from vedette.streamer.types import Frame
from vedette.streamer.worker import Life, Setup

HW = (256, 416)
WHOLE = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
JPEG = b"\xff\xd8 a picture \xff\xd9"


class World:
    """A run folder with an infer loop in a thread, a hub that acknowledges, and one camera."""

    def __init__(self, folder: Path, config: dict[str, Any], *, life: int = 1) -> None:
        self.beats: list[dict[str, Any]] = []
        self.events: list[tuple[dict[str, Any], bytes]] = []
        self.tracks: list[dict[str, Any]] = []
        self.cuts: list[tuple[str, int]] = []
        self.answer: bytes | None = JPEG
        self.failure: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._context = zmq.Context()
        self._events = self._bind(zmq.ROUTER, wire.ipc(folder, wire.EVENTS))
        self._telemetry = self._bind(zmq.PULL, wire.ipc(folder, wire.TELEMETRY))
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        self._pipe = os.fdopen(reader, "rb")
        self._write_fd = writer
        self.life = Life(
            Setup("infer", "infer", "boot1", str(folder), config, writer, os.getppid(), extra={"life": life})
        )  # fmt: skip
        create_ring(folder / "ring-dock-1", 5, slot_bytes_for(HW))
        self._ring = Ring.open(folder / "ring-dock-1", writable=True)
        self.camera = FrameWriter(folder, "dock", uuid.uuid4().hex[:16], self._ring)
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._infer, self._hub, self._listen, self._cut)
        ]
        for thread in self._threads:
            thread.start()
        self._seq, self._began_s = 0, time.monotonic()

    def _bind(self, kind: int, endpoint: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(endpoint)
        return socket

    def _infer(self) -> None:
        try:
            run(self.life)
        except BaseException as error:  # noqa: BLE001 - shown by `until`
            self.failure.put(error)

    def _hub(self) -> None:
        poller = zmq.Poller()
        poller.register(self._events, zmq.POLLIN)
        poller.register(self._telemetry, zmq.POLLIN)
        while not self._stop.is_set():
            for socket, _ in poller.poll(50):
                if socket is self._telemetry:
                    self.tracks.append(json.loads(socket.recv_multipart()[1]))
                    continue
                who, kind, raw, *blobs = socket.recv_multipart()
                message = json.loads(raw)
                if kind == b"hello":
                    socket.send_multipart([who, b"hello", wire.encode({"boot": "hub1"})])
                else:
                    self.events.append((message, blobs[0]))
                    socket.send_multipart([who, b"ack", wire.encode({"id": message["id"], "rev": message["rev"]})])

    def _listen(self) -> None:
        for line in self._pipe:
            self.beats.append(json.loads(line))

    def _cut(self) -> None:
        while not self._stop.is_set():
            for cut in self.camera.poll(50):
                self.cuts.append((cut.key, cut.mono_ns))
                if self.answer is not None:
                    self.camera.send_snapshot(cut, self.answer)

    def show(self, picture: np.ndarray, *, epoch: int = 1) -> None:
        """Send one picture, as soon as there is a free slot for it."""
        view = self.until("a free slot", lambda: self.camera.reserve(*HW))
        box = draw_letterbox(picture, view)
        now_ns = time.monotonic_ns()
        self.camera.send(Frame("dock", epoch, self._seq, now_ns, self._seq / 10, time.time(), view, box))
        self._seq += 1

    def until(self, what: str, ready: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        """The first value of ``ready`` that is not None, False or empty."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if not self.failure.empty():
                raise self.failure.get()
            value = ready()
            if value is not None and value is not False and not (isinstance(value, list) and not value):
                return value
            time.sleep(0.01)
        raise AssertionError(f"{what}: not within {timeout_s} s")

    def play(self, pictures: list[np.ndarray], **how: Any) -> None:
        """Send pictures, each after the last one was judged."""
        for picture in pictures:
            before = len(self.tracks)
            self.show(picture, **how)
            self.until("its tracks", lambda before=before: len(self.tracks) > before)

    def told(self) -> list[tuple[str, str]]:
        return [(event["rule"], event["phase"]) for event, _ in self.events]

    def stop(self) -> None:
        """Tell the loop to stop and wait for it."""
        self.life.stopping.set()
        self._threads[0].join(10)
        assert not self._threads[0].is_alive(), "the loop did not stop"

    def close(self) -> None:
        self.stop()
        self._stop.set()
        self._threads[1].join(5)
        self._threads[3].join(5)
        self.camera.close()
        os.close(self._write_fd)
        self._threads[2].join(5)
        self._pipe.close()
        self._context.destroy(linger=0)


def config(**camera: Any) -> dict[str, Any]:
    section = {"source": "x.mp4", "zones": {"all": WHOLE}, "rules": [{"kind": "zone", "zone": "all"}], **camera}
    return {"version": 1, "site": "yard", "cameras": {"dock": section}}


@pytest.fixture(scope="module")
def pictures(data_dir: Path) -> list[np.ndarray]:
    """Twelve pictures of people walking, and the clip's own order."""
    capture = cv2.VideoCapture(str(data_dir / "clips" / "vtest.avi"))
    found = [capture.read()[1] for _ in range(12)]
    capture.release()
    return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds and takes them down."""
    made = []

    def make(settings: dict[str, Any], **how: Any) -> World:
        made.append(World(tmp_path, settings, **how))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.data
def test_pictures_become_tracks_and_alerts_with_their_snapshot(
    world: Callable[..., World], pictures: list[np.ndarray]
) -> None:
    """People in the zone are told with public ids, and every start carries the JPEG that was cut for its moment."""
    yard = world(config())
    yard.play(pictures)
    yard.until("two starts", lambda: len(yard.events) >= 2)
    event, jpeg = yard.events[0]
    assert (event["phase"], event["rev"], event["producer"], event["boot"]) == ("start", 0, "infer", "boot1")
    assert jpeg == JPEG
    assert (event["id"], event["mono_ns"]) in yard.cuts
    assert event["latency_ms"]["capture"] >= 0
    assert event["latency_ms"]["infer"] > 0
    message = yard.tracks[-1]
    assert (message["schema"], message["site"], message["camera"]) == ("vedette.tracks/1", "yard", "dock")
    assert (message["width"], message["height"], message["seq"]) == (768, 576, 11)
    # a car is parked at the right border
    assert "person" in {track["label"] for track in message["tracks"]} <= {"person", "car"}
    assert all(track["id"].startswith("dock/boot1/") for track in message["tracks"])
    assert set(event["track_ids"]) <= {track["id"] for track in message["tracks"]}


@pytest.mark.data
def test_stopping_ends_every_incident_and_leaves_nothing_unacknowledged(
    world: Callable[..., World], pictures: list[np.ndarray]
) -> None:
    """An ordered stop closes what is open, with its reason, and the hub has it before the process ends."""
    yard = world(config())
    yard.play(pictures)
    yard.stop()
    starts = {event["id"] for event, _ in yard.events if event["phase"] == "start"}
    ends = {event["id"]: event for event, _ in yard.events if event["phase"] == "end"}
    assert starts
    assert starts == ends.keys()
    assert {event["explain"]["reason"] for event in ends.values()} == {"stopped"}
    assert yard.until("the last beat", lambda: yard.beats[-1] if yard.beats[-1].get("unacked") == 0 else None)


@pytest.mark.data
def test_without_an_answer_the_alert_goes_without_its_picture(
    world: Callable[..., World], pictures: list[np.ndarray]
) -> None:
    """A capture process that does not answer delays an alert by 300 ms at most, and the alert says what is missing."""
    yard = world(config())
    yard.answer = None
    yard.play(pictures)
    yard.until("a start", lambda: yard.events)
    event, jpeg = yard.events[0]
    assert jpeg == b""
    assert event["explain"]["snapshot"] == "none: no answer within 300 ms"


@pytest.mark.data
def test_in_a_later_life_who_stands_there_is_silent(world: Callable[..., World], pictures: list[np.ndarray]) -> None:
    """After a restart of infer nobody who is already inside is reported again."""
    yard = world(config(), life=2)
    yard.play(pictures)
    yard.stop()
    assert any(message["tracks"] for message in yard.tracks)
    assert yard.events == []


@pytest.mark.data
def test_a_reload_changes_rules_while_running(world: Callable[..., World], pictures: list[np.ndarray]) -> None:
    """The removed rule's incidents end, tracks keep their numbers, and the loop goes on."""
    yard = world(config())
    yard.play(pictures[:6])
    before = {track["id"] for track in yard.tracks[-1]["tracks"]}
    yard.life.control.put({"control": "reload", "config": config(rules=[])})
    yard.until("the end of what was open", lambda: ("zone:all", "end") in yard.told())
    yard.play(pictures[6:])
    assert before & {track["id"] for track in yard.tracks[-1]["tracks"]}
    ended = [event for event, _ in yard.events if event["phase"] == "end"]
    assert {event["explain"]["reason"] for event in ended} == {"reload"}


def test_an_idle_loop_says_what_it_wants_and_keeps_beating(world: Callable[..., World]) -> None:
    """Without a single picture the heartbeat goes on, with the input size that captures must letterbox to."""
    yard = world(config())
    yard.until("two idle beats", lambda: len([b for b in yard.beats if b["state"] == "idle"]) >= 2)
    assert yard.beats[0]["state"] == "loading"
    assert yard.beats[0]["deadline_s"] > 60
    assert yard.beats[-1]["input_hw"] == list(HW)
    yard.life.control.put({"control": "dance"})
    yard.life.control.put({"control": "reload", "config": {"version": 9}})
    seen = len(yard.beats)
    yard.until("beats after nonsense", lambda: len(yard.beats) > seen + 1)
