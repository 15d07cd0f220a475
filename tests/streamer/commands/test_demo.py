"""``vedette demo``: the real daemon on a real clip, told in public messages, with a picture to look at."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from vedette.streamer.offline.gallery import Gallery

COMMAND = [sys.executable, "-m", "vedette.streamer.cli", "demo"]


@pytest.mark.data
@pytest.mark.slow
def test_the_demo_shows_tracks_and_alerts_and_leaves_pictures(data_dir: Path, tmp_path: Path) -> None:
    """Ten seconds of pedestrians: schema-marked JSON lines only, alerts of every scene rule that fired carry a picture."""
    clip = data_dir / "clips" / "vtest.avi"
    done = subprocess.run(
        [*COMMAND, "--video", str(clip), "--seconds", "10", "--format", "json", "--out", str(tmp_path)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    assert {message["schema"] for message in messages} == {"vedette.tracks/1", "vedette.alert/1"}
    alerts = [message for message in messages if message["schema"] == "vedette.alert/1"]
    assert [alert["seq"] for alert in alerts] == list(range(1, len(alerts) + 1))
    assert any(alert["rule"] == "zone:crossing" and alert["phase"] == "start" for alert in alerts)
    pictures = sorted(tmp_path.glob("*.jpg"))
    assert pictures
    assert cv2.imread(str(pictures[0])).shape == (576, 768, 3)
    assert (tmp_path / "demo.yaml").exists()
    assert "annotated pictures" in done.stderr


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_the_demo(number: int, data_dir: Path, tmp_path: Path) -> None:
    """After Ctrl-C, and after kill -9 of the demo itself, every process of its daemon is gone."""
    clip = data_dir / "clips" / "vtest.avi"
    with (tmp_path / "out.txt").open("wb") as out:
        demo = subprocess.Popen([*COMMAND, "--video", str(clip), "--out", str(tmp_path)], stdout=out, stderr=out)
    deadline = time.monotonic() + 60
    family: list[psutil.Process] = []
    while len(family) < 4 and time.monotonic() < deadline:  # supervisor, hub, infer, capture
        family = psutil.Process(demo.pid).children(recursive=True)
        time.sleep(0.1)
    assert len(family) >= 4
    demo.send_signal(number)
    status = demo.wait(15)
    assert status == (0 if number == signal.SIGINT else -number)
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []


def test_no_clip_is_one_sentence_and_exit_4(tmp_path: Path) -> None:
    """A file that is not there is told with the option that named it."""
    words = [*COMMAND, "--video", str(tmp_path / "none.mp4")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode == 4
    assert len(done.stderr.strip().splitlines()) == 1
    assert "--video needs a readable file" in done.stderr
    assert list(tmp_path.iterdir()) == []


def alert(seq: int, **other: Any) -> dict[str, Any]:
    return {
        "seq": seq, "id": f"i{seq}", "phase": "start", "rule": "zone:gate", "camera": "demo", "time": "T1",
        "track_ids": ["demo/b/1"], "label": "person", "box": [0.2, 0.2, 0.4, 0.8],
        "evidence": {"snapshot": "s.jpg"}, **other,
    }  # fmt: skip


def test_the_gallery_draws_the_moment_of_the_alert(tmp_path: Path) -> None:
    """The tracks of the alert's own picture are drawn; without them the alert's box is; without a snapshot nothing."""
    store, folder = tmp_path / "store", tmp_path / "out"
    store.mkdir()
    folder.mkdir()
    cv2.imwrite(str(store / "s.jpg"), np.full((240, 320, 3), 128, np.uint8))
    gallery = Gallery(folder, store, {})
    track = {"id": "demo/b/9", "label": "car", "box": [0.6, 0.5, 0.9, 0.9], "since_seen_s": 0.0}
    gallery.take_tracks({"camera": "demo", "time": "T1", "tracks": [track]})
    with_tracks = cv2.imread(str(gallery.take_alert(alert(1))))
    alone = cv2.imread(str(gallery.take_alert(alert(2, time="T2"))))
    right, left = (slice(130, 210), slice(187, 197)), (slice(80, 180), slice(60, 68))
    assert (np.abs(with_tracks[right].astype(int) - 128) > 40).any()
    assert (np.abs(with_tracks[left].astype(int) - 128) < 40).all()
    assert (np.abs(alone[left].astype(int) - 128) > 40).any()
    assert gallery.take_alert(alert(3, evidence={"snapshot": None})) is None
    assert gallery.take_alert(alert(4, phase="end")) is None
    assert [path.name for path in gallery.written] == ["001-zone-gate.jpg", "002-zone-gate.jpg"]
