"""Clips: made of what is remembered, told as a later rev, absent with a reason, and never at the alert's expense."""

from __future__ import annotations

import errno
import json
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.streamer.captured import captured
from tests.streamer.clips import write_clip
from vedette.streamer.bench._hub import HubProcess
from vedette.streamer.bus.mailbox import Snapshot
from vedette.streamer.capture.clip import MOST_WAITING, ClipForm, ClipMaker, encode_clip
from vedette.streamer.capture.evidence import EvidenceRing
from vedette.streamer.config.schema import ClipSection
from vedette.streamer.errors import VedetteError
from vedette.streamer.eventlink import EventLink
from vedette.streamer.infer.clipdesk import PATIENCE_S, SETTLE_S, ClipDesk
from vedette.streamer.outbox.committer import Arrival, Committer
from vedette.streamer.outbox.diskguard import DiskGuard
from vedette.streamer.outbox.reader import OutboxReader
from vedette.streamer.outbox.records import Draft, Picture
from vedette.streamer.outbox.snapshots import Snapshots
from vedette.streamer.outbox.store import Outbox
from vedette.streamer.types import Event

U8 = NDArray[np.uint8]
S = 1_000_000_000
START = Event("e1", 0, "infer", "b1", "dock", "zone:gate", "zone", "start", "warning", 100 * S, 1000.0)


def grey(level: int) -> U8:
    return np.full((90, 160, 3), level, np.uint8)


def decoded(data: bytes, folder: Path) -> list[float]:
    """The mean grey level of every picture of an mp4."""
    path = folder / "look.mp4"
    path.write_bytes(data)
    reader, levels = cv2.VideoCapture(str(path)), []
    while True:
        good, picture = reader.read()
        if not good:
            return levels
        levels.append(float(picture.mean()))


def test_a_clip_runs_in_real_time_whatever_the_pictures_distances(tmp_path: Path) -> None:
    """Two seconds at 5 a second are 11 pictures; where none was remembered, the one before stays."""
    shots = [(0, partial(grey, 20)), (300_000_000, partial(grey, 80)), (1_500_000_000, partial(grey, 200))]
    levels = decoded(encode_clip(shots, 0, 2 * S, ClipForm(fps=5), tmp_path), tmp_path)
    assert np.allclose(levels, [20] * 2 + [80] * 6 + [200] * 3, atol=6)
    assert list(tmp_path.glob(".clip-*")) == []


def test_the_same_pictures_give_the_same_bytes(tmp_path: Path) -> None:
    """No date, no thread, no random number is in a clip."""
    shots = [(k * S // 5, partial(grey, 10 * k)) for k in range(20)]
    first, second = (encode_clip(shots, 0, 4 * S, ClipForm(), tmp_path) for _ in range(2))
    assert first == second


def test_large_pictures_become_smaller_and_odd_ones_even(tmp_path: Path) -> None:
    """A clip is at most max_side wide, its sides even; a change of size in the middle is fitted."""
    shots = [(0, lambda: np.zeros((301, 501, 3), np.uint8)), (S, partial(grey, 90))]
    (tmp_path / "a.mp4").write_bytes(encode_clip(shots, 0, 2 * S, ClipForm(max_side=200), tmp_path))
    reader = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    assert (reader.get(cv2.CAP_PROP_FRAME_WIDTH), reader.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (200, 120)


def test_without_pictures_there_is_no_clip(tmp_path: Path) -> None:
    """Nothing remembered is an error with its reason, not an empty file."""
    with pytest.raises(VedetteError, match="no picture of that time"):
        encode_clip([], 0, S, ClipForm(), tmp_path)


def test_the_ring_gives_a_span_in_order_whole_and_jpeg() -> None:
    """Old pictures come from JPEG and new ones whole, oldest first, none twice."""
    ring = EvidenceRing(4_000_000, jpeg_every_s=0.2)
    for k in range(60):
        ring.push(grey(k * 4), k * S // 10)
        ring.compact()
    span = ring.span(2 * S, 5 * S)
    moments = [moment for moment, _ in span]
    assert moments == sorted(set(moments))
    assert 2 * S <= moments[0] <= 2.3 * S
    assert moments[-1] == 5 * S
    for moment, picture in span:
        assert abs(picture().mean() - moment / S * 10 * 4) < 4


def test_a_clip_is_asked_for_when_its_last_second_has_passed() -> None:
    """Not before; the telling is the next rev, an update, and says what the clip shows."""
    asked: list[tuple[object, ...]] = []
    desk = ClipDesk(lambda *what: asked.append(what), lambda *_: 2)
    desk.put(START, ClipSection(before=4, after=3), 10.0)
    desk.put(replace(START, rev=1, phase="end"), ClipSection(), 11.0)
    desk.put(replace(START, id="e2"), None, 11.0)
    assert desk.work(12.9) == []
    assert asked == []
    assert desk.work(13.0 + SETTLE_S) == []
    assert asked == [("dock", "clip:e1", 100 * S, (4, 3))]
    assert desk.take(Snapshot("dock", "clip:e1", 100 * S, b"film"))
    ((event, clip),) = desk.work(14.0)
    assert (event.id, event.rev, event.phase, clip) == ("e1", 2, "update", b"film")
    assert event.explain["clip"] == {"before_s": 4, "after_s": 3}
    assert len(desk) == 0


def test_a_clip_that_does_not_come_is_told_with_its_reason() -> None:
    """An empty answer and no answer at all are both said; the alert was never held back for it."""
    desk = ClipDesk(lambda *_: None, lambda *_: 1)
    desk.put(START, ClipSection(), 0.0)
    desk.put(replace(START, id="e2"), ClipSection(), 0.0)
    assert desk.work(6.0) == []
    desk.take(Snapshot("dock", "clip:e1", 100 * S, None))
    ((gone, clip),) = desk.work(7.0)
    assert clip == b""
    assert gone.explain["clip"].startswith("none: no picture")
    ((missed, _),) = desk.work(6.1 + PATIENCE_S)
    assert missed.id == "e2"
    assert "no answer" in missed.explain["clip"]
    assert desk.take(Snapshot("dock", "clip:e2", 100 * S, b"late")), "a late film is nobody's picture"
    assert desk.work(99.0) == []


def test_too_many_clips_are_refused_and_nobody_waits() -> None:
    """The maker takes a few and answers the others at once."""
    maker, gate, answers = ClipMaker("cam"), threading.Event(), []
    done = threading.Semaphore(0)

    def slow() -> bytes:
        gate.wait(20)
        return b"film"

    def take(clip: bytes | None) -> None:
        answers.append(clip)
        done.release()

    for _ in range(MOST_WAITING + 4):
        maker.ask(slow, take)
    assert answers.count(None) >= 3
    gate.set()
    for _ in range(MOST_WAITING + 4):
        assert done.acquire(timeout=20)
    assert maker.refused + maker.made == MOST_WAITING + 4
    maker.close()


def test_a_later_telling_shows_snapshot_and_clip(tmp_path: Path) -> None:
    """The start has its picture, the clip's rev both, and so has an end that comes after; an end before is not undone."""
    outbox, snapshots = Outbox(tmp_path, site="s"), Snapshots(tmp_path)
    film = encode_clip([(0, partial(grey, 50))], 0, S, ClipForm(), tmp_path)
    picture = Picture("evidence/dock/1970-01-01/e1-0.jpg", 10, "ab" * 32)
    outbox.commit([Draft(START, picture)])
    update = replace(START, rev=1, phase="update")
    (clip,) = snapshots.write_all([(update, film)])
    assert clip.path == "evidence/dock/1970-01-01/e1-1.mp4"
    outbox.commit([Draft(update, clip, timed=False)])
    outbox.commit([Draft(replace(START, rev=2, phase="end"))])
    reader = OutboxReader(tmp_path)
    told = [json.loads(alert.body)["evidence"] for alert in reader.page(0).alerts]
    assert told[0] == {"snapshot": picture.path, "clip": None, "sha256": picture.sha256}
    both = {"snapshot": picture.path, "clip": clip.path, "sha256": picture.sha256, "clip_sha256": clip.sha256}
    assert told[1:] == [both, both]
    assert reader.evidence(3, "clip") == tmp_path / clip.path
    assert outbox.picture_bytes() == 10 + len(film)
    reader.close()
    outbox.close()


def test_a_capture_process_makes_a_clip_with_privacy_applied(tmp_path: Path) -> None:
    """Real processes: the film shows what the camera showed, and black where privacy is drawn."""
    source = write_clip(tmp_path / "moving.avi", 60)
    half = [[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    with captured(run_dir, str(source), privacy=[half], evidence={"clip": {"before": 1, "after": 0}}) as process:
        moments = [lease.header.mono_ns for lease in process.frames(12)]
        process.reader.cut("cam", "clip:x", moments[-1], clip=(1.0, 0.0))
        process.until(lambda: process.reader.take(1, 0.05) is None or process.reader.snapshots, "a clip")
        film = process.reader.snapshots.popleft().jpeg
    assert film is not None
    path = tmp_path / "film.mp4"
    path.write_bytes(film)
    reader = cv2.VideoCapture(str(path))
    good, picture = reader.read()
    assert good
    assert picture[:, :70].mean() < 12
    assert picture[:, 90:].mean() > 30


def test_a_hub_killed_before_the_clip_came_gets_it_afterwards(tmp_path: Path) -> None:
    """The alert was committed long before; the clip waits with its producer until a hub takes it, once."""
    film = encode_clip([(0, partial(grey, 50))], 0, S, ClipForm(), tmp_path)
    with HubProcess(tmp_path / "store") as hub, EventLink(hub.events, "infer", "b1") as link:
        link.send(START, b"\xff\xd8\xff picture \xff\xd9")
        assert link.drain(20)
        hub.kill()
        link.send(replace(START, rev=1, phase="end"))
        link.send(replace(START, rev=2, phase="update", explain={"clip": {"before_s": 5, "after_s": 5}}), film)
        hub.start()
        assert link.drain(20)
    reader = OutboxReader(tmp_path / "store")
    alerts = [json.loads(alert.body) for alert in reader.page(0).alerts]
    reader.close()
    assert [(alert["rev"], alert["phase"]) for alert in alerts] == [(0, "start"), (1, "end"), (2, "update")]
    assert alerts[2]["latency_ms"]["total"] is None, "a clip has no latency"
    assert (tmp_path / "store" / alerts[2]["evidence"]["clip"]).read_bytes() == film
    assert alerts[2]["evidence"]["snapshot"] == alerts[0]["evidence"]["snapshot"]


def test_a_clip_that_the_disk_does_not_take_costs_the_alert_nothing(tmp_path: Path) -> None:
    """The telling is committed without its film, and the loss is counted."""
    outbox, counters = Outbox(tmp_path, site="s"), Counter[str]()

    class Full(Snapshots):
        def write_all(self, wanted: Sequence[tuple[Event, bytes]]) -> list[Picture]:
            raise OSError(errno.ENOSPC, f"no space for {len(wanted)}")

    committer = Committer(outbox, Full(tmp_path), DiskGuard(tmp_path, reserve_bytes=0), counters)
    film = encode_clip([(0, partial(grey, 50))], 0, S, ClipForm(), tmp_path)
    committer.offer(Arrival(replace(START, rev=1, phase="update"), film, b"infer"))
    outcome, _ = committer.commit()
    assert json.loads(outcome.stored[0].body)["evidence"]["clip"] is None
    assert counters["pictures_unwritten"] == 1
    outbox.close()
