"""The capture process on files: states, epochs, privacy, evidence, and an end that is always prompt."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np

from tests.streamer.captured import INPUT_HW, captured
from tests.streamer.clips import write_clip, write_mjpeg


def test_a_file_is_played_once_and_the_process_stays(tmp_path: Path) -> None:
    """Every wanted picture is taken at the file's own pace, then the state is ``ended`` and beats go on."""
    clip = write_clip(tmp_path / "a.avi", count=30, fps=15)
    with captured(tmp_path, str(clip), fps=15) as capture:
        leases = [(lease.header.seq, lease.header.epoch, lease.header.source_s) for lease in capture.frames(25)]
        ended = capture.until_state("ended")
        assert ended["frames"] == 30
        assert ended["source_w"] == 160
        seen = len(capture.beats)
        capture.until(lambda: len(capture.beats) >= seen + 2, "beats of an idle camera")
        assert capture.beats[-1]["state"] == "ended"
        assert capture.stop() == 0
    assert [seq for seq, _, _ in leases] == sorted({seq for seq, _, _ in leases})
    assert len({epoch for _, epoch, _ in leases}) == 1
    assert np.allclose([s for _, _, s in leases], [seq / 15 for seq, _, _ in leases], atol=0.02)


def test_a_loop_is_a_new_epoch(tmp_path: Path) -> None:
    """Every pass begins with a higher epoch, seq 0 and time 0; between passes nothing temporal is carried over."""
    clip = write_clip(tmp_path / "a.avi", count=6, fps=15)
    with captured(tmp_path, str(clip), fps=120, loop=True, pace="max") as capture:
        headers = [lease.header for lease in capture.frames(40)]
        epochs = [header.epoch for header in headers]
        assert epochs == sorted(epochs)
        assert len(set(epochs)) >= 3
        assert all(header.source_s < 1 for header in headers)
        assert capture.stop() == 0


def test_a_later_life_never_reuses_an_epoch(tmp_path: Path) -> None:
    """A restarted process begins above every epoch of the one before, so that its memory is reset for sure."""
    clip = write_clip(tmp_path / "a.avi", count=6, fps=15)
    seen = []
    for life in ("1", "2"):
        (tmp_path / life).mkdir()
        with captured(tmp_path / life, str(clip), fps=120, loop=True, pace="max") as capture:
            seen.append([lease.header.epoch for lease in capture.frames(20)])
            capture.process.kill()
    assert max(seen[0]) < min(seen[1])


def test_at_most_the_wanted_rate_is_analysed(tmp_path: Path) -> None:
    """A 30 fps file at ``fps: 10`` gives every third picture."""
    clip = write_clip(tmp_path / "a.avi", count=60, fps=30)
    with captured(tmp_path, str(clip), fps=10) as capture:
        ended = capture.until_state("ended")
        assert ended["frames"] == 20


def test_privacy_is_black_in_frames_and_in_evidence(tmp_path: Path) -> None:
    """The masked quarter is 0 in the ring slot and black in the JPEG; the rest shows the picture."""
    clip = write_clip(tmp_path / "a.mp4", count=200, fps=30, height=480, width=640)
    polygon = [[0.0, 0.0], [0.5, 0.0], [0.5, 0.5], [0.0, 0.5]]
    with captured(tmp_path, str(clip), fps=10, loop=True, privacy=[polygon]) as capture:
        for lease in capture.frames(5):
            frame = lease.frame()
            box = frame.letterbox
            inner_h, inner_w = box.inner_hw
            assert frame.pixels.shape == (*INPUT_HW, 3)
            masked = frame.pixels[box.pad_y : box.pad_y + inner_h // 2, box.pad_x : box.pad_x + inner_w // 2]
            assert not masked.any()
            assert frame.pixels[box.pad_y + inner_h // 2 + 5 :, box.pad_x + inner_w // 2 :].any()
            moment = frame.mono_ns
        jpeg = capture.cut(moment)
    assert jpeg is not None
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (480, 640, 3)
    assert picture[:232, :312].max() <= 4, "black but for JPEG's rounding"
    assert picture[260:, 340:].mean() > 30


def test_evidence_is_the_very_picture(tmp_path: Path) -> None:
    """The cut of a frame's moment shows what the frame showed: the moving square is where it was."""
    clip = write_clip(tmp_path / "a.avi", count=300, fps=10, height=240, width=320)
    with captured(tmp_path, str(clip), fps=10) as capture:
        for lease in capture.frames(8):
            header = lease.header
        jpeg = capture.cut(header.mono_ns)
    assert jpeg is not None
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    columns = np.flatnonzero(picture[30] > 200)
    assert abs(int(columns[0]) - 4 * header.seq % 300) <= 2


def test_a_moment_that_is_gone_is_answered_empty(tmp_path: Path) -> None:
    """No picture near that moment: an empty answer, at once."""
    clip = write_clip(tmp_path / "a.avi", count=30)
    with captured(tmp_path, str(clip), loop=True) as capture:
        list(capture.frames(2))
        assert capture.cut(1) is None


def test_a_frozen_picture_is_a_state(tmp_path: Path) -> None:
    """A file that shows one picture for ever: ``frozen`` after ``frozen_after`` seconds, frames go on."""
    clip = write_mjpeg(tmp_path / "a.mjpeg", [(120, 160)] * 60, each=1)
    with captured(tmp_path, str(clip), fps=10, frozen_after=1.0) as capture:
        frozen = capture.until_state("frozen")
        assert frozen["last_frame_mono_ns"] is not None
        assert [beat for beat in capture.beats if beat["state"] == "streaming"]


def test_bad_data_is_refused_and_the_process_lives(tmp_path: Path) -> None:
    """A text file as a camera: state ``refused``, a clear error in beat and log, no crash; a good file heals it."""
    path = tmp_path / "a.avi"
    path.write_text("no video")
    with captured(tmp_path, str(path), loop=True) as capture:
        beat = capture.until_state("refused")
        assert "not a video" in beat["last_error"]
        capture.until(lambda: any("not a video" in line for line in capture.log), "the log line")
        write_clip(tmp_path / "b.avi").rename(path)
        list(capture.frames(2))
        healed = capture.until_state("streaming")
        assert healed["last_error"] is None
        assert capture.stop() == 0


def test_a_missing_file_is_waited_for(tmp_path: Path) -> None:
    """State ``waiting`` with progress; the file is opened soon after it appears."""
    path = tmp_path / "late.avi"
    with captured(tmp_path, str(path), loop=True) as capture:
        beat = capture.until_state("waiting")
        assert "No such file" in beat["last_error"]
        write_clip(tmp_path / "now.avi").rename(path)
        list(capture.frames(1))


def test_secrets_never_reach_the_log_or_a_beat(tmp_path: Path) -> None:
    """A camera that cannot be reached: its password is in no line that leaves the process."""
    with captured(tmp_path, "rtsp://viewer:hunter2secret@127.0.0.1:1/x?token=qwertz") as capture:
        beat = capture.until_state("waiting")
        capture.until(lambda: capture.log, "a log line")
        capture.stop()
        text = str(beat) + "".join(capture.log) + str(capture.beats)
    assert "127.0.0.1" in text
    assert "hunter2secret" not in text
    assert "qwertz" not in text


def test_a_pipeline_that_can_never_run_ends_the_process_with_exit_2(tmp_path: Path) -> None:
    """`gst:` without GStreamer: the sentence with the fix, exit 2, no endless restarts by itself."""
    with captured(tmp_path, "gst:videotestsrc ! appsink") as capture:
        assert capture.process.wait(30) == 2
        capture.until(lambda: capture.beats and capture.beats[-1]["state"] == "failed", "the last words", ended=True)
        assert "GStreamer" in capture.beats[-1]["error"]


def test_stopping_is_prompt_in_every_state(tmp_path: Path) -> None:
    """Told to stop while playing, waiting or refused, the process is gone in time with exit 0."""
    clip = write_clip(tmp_path / "a.avi")
    (tmp_path / "bad.avi").write_text("no video")
    for number, (source, state) in enumerate(
        ((str(clip), "streaming"), (str(tmp_path / "none.avi"), "waiting"), (str(tmp_path / "bad.avi"), "refused"))
    ):
        (tmp_path / str(number)).mkdir()
        with captured(tmp_path / str(number), source, loop=True) as capture:
            capture.until_state(state)
            began = time.monotonic()
            assert capture.stop() == 0
            assert time.monotonic() - began < 8
