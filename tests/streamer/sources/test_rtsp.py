"""Cameras on a real RTSP server: both transports, refusals, silence, death and return."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.streamer.captured import CaptureProcess, captured
from tests.streamer.rtsp import RtspServer, rtsp_server
from vedette.streamer.capture.camera import GRACE_S
from vedette.streamer.errors import SourceError, SourceRefused
from vedette.streamer.sources import Want, open_source
from vedette.streamer.sources.handshake import describe

SMALL = ("--size", "320x180", "--seconds", "4", "--keyframe", "1")


def longest_silence_s(capture: CaptureProcess) -> float:
    """The longest gap between two beats that was not announced."""
    gaps = [(b["mono_ns"] - a["mono_ns"]) / 1e9 - (a.get("deadline_s") or 10.0) for a, b in pairwise(capture.beats)]
    return max(gaps)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_an_h264_camera_streams(tmp_path: Path, transport: str) -> None:
    """Frames with rising time at the camera's rate, by tcp and by udp; codec and size are what the camera sends."""
    with rtsp_server(*SMALL) as server, captured(tmp_path, server.url(), transport=transport, fps=15) as capture:
        frames = [(lease.header.source_s, lease.pixels.mean()) for lease in capture.frames(20)]
        assert all(b > a for (a, _), (b, _) in pairwise(frames))
        assert all(mean > 1 for _, mean in frames)
        beat = capture.until_state("streaming")
        assert (beat["source_w"], beat["source_h"]) == (320, 180)
        capture.until(lambda: any("h264" in line for line in capture.log), "the codec in the log")
        assert capture.stop() == 0


def test_four_mounts_are_four_cameras() -> None:
    """One server, four cameras, each described and opened."""
    with rtsp_server(*SMALL, "--cameras", "4") as server:
        for camera in range(4):
            describe(server.url(camera), 5.0)
        with pytest.raises(SourceError, match="no such stream"):
            describe(server.url(4), 5.0)


@pytest.mark.parametrize("how", ["basic", "digest"])
def test_the_right_password_is_accepted_and_the_wrong_one_refused(how: str) -> None:
    """A password with signs in it works; a wrong one, and none, are refusals that say so without the secret."""
    with rtsp_server(*SMALL, "--user", "bob", "--password", "p@ss:word", "--auth", how) as server:
        open_source(server.url(login="bob:p%40ss%3Aword"), Want(open_timeout_s=5)).close()
        with pytest.raises(SourceRefused, match="wrong user or password") as wrong:
            describe(server.url(login="bob:sesame123"), 5.0)
        assert "sesame123" not in str(wrong.value)
        with pytest.raises(SourceRefused, match="asks for a user and password"):
            describe(server.url(), 5.0)


def test_a_refused_camera_is_retried_slowly(tmp_path: Path) -> None:
    """State ``refused``, progress all the while, the second try not within a second; the secret is nowhere."""
    with rtsp_server(*SMALL, "--user", "bob", "--password", "right") as server:
        with captured(tmp_path, server.url(login="bob:sesame123")) as capture:
            first = capture.until_state("refused")
            seen = len(capture.beats)
            again = capture.until_state("connecting", after=seen)
            assert again["mono_ns"] - first["mono_ns"] >= 0.9e9
            capture.until(lambda: capture.log, "a log line")
            assert longest_silence_s(capture) <= 0
            assert capture.stop() == 0
        assert "sesame123" not in str(capture.beats) + "".join(capture.log)


@pytest.mark.slow
def test_a_server_that_never_answers_is_given_up_in_time(tmp_path: Path) -> None:
    """It accepts the connection and says nothing: an error within the announced deadline, again and again."""
    with rtsp_server("--silent") as server:
        began = time.monotonic()
        with pytest.raises(SourceError, match="accepts the connection but does not answer"):
            open_source(server.url(), Want(open_timeout_s=1.0))
        assert time.monotonic() - began < 10
        with captured(tmp_path, server.url()) as capture:
            beat = capture.until_state("waiting")
            assert "does not answer" in beat["last_error"]
            seen = len(capture.beats)
            capture.until_state("connecting", after=seen)
            assert longest_silence_s(capture) <= 0
            assert capture.stop() == 0


def test_a_camera_that_dies_comes_back(tmp_path: Path) -> None:
    """SIGKILL of the server, and a new one on the same port: the same process delivers again, in a new epoch."""
    with rtsp_server(*SMALL) as server, captured(tmp_path, server.url(), fps=15) as capture:
        before = [lease.header.epoch for lease in capture.frames(5)][-1]
        server.kill()
        seen = len(capture.beats)
        capture.until_state("waiting", after=seen)
        server.start()
        back = time.monotonic()
        header = next(lease.header for lease in capture.frames(10_000) if lease.header.epoch > before)
        took_s = time.monotonic() - back
        assert header.source_s < 5, "time begins anew with an epoch"
        beat = capture.until_state("streaming", after=seen)
        assert beat["reconnects"] == 1
        assert capture.process.poll() is None
        assert longest_silence_s(capture) <= 0
        # The promise is 3 s + one keyframe interval; the deadline here is generous because tests share the machine.
        assert took_s < 20


@pytest.mark.slow
def test_evidence_is_cut_while_a_read_hangs(tmp_path: Path) -> None:
    """The camera stops sending but keeps the connection: cuts are still answered, and the announced deadline is short.

    The read ends by its own time-out or by the supervisor, which was told how long silence may last.
    """
    with rtsp_server(*SMALL, "--stall-after", "60") as server, captured(tmp_path, server.url(), fps=15) as capture:
        capture.until(lambda: capture.beats[-1:] and capture.beats[-1].get("frames", 0) >= 40, "forty pictures")
        last = [lease.header.mono_ns for lease in capture.frames(3)][-1]
        capture.until(_silent_for(capture, 1.0), "a read that hangs")
        assert capture.cut(last) is not None
        beat = capture.beats[-1]
        assert beat["state"] == "streaming"
        assert 2.0 <= beat["deadline_s"] <= 10 + GRACE_S
        assert capture.stop() == 0, "a hanging read does not keep the process from leaving"


def _silent_for(capture: CaptureProcess, seconds: float) -> Callable[[], bool]:
    return lambda: time.monotonic_ns() - capture.beats[-1]["mono_ns"] > seconds * 1e9


def test_a_frozen_camera_is_reported(tmp_path: Path) -> None:
    """The stream goes on with the same picture for ever: ``frozen``, not ``streaming``."""
    with (
        rtsp_server(*SMALL, "--freeze-after", "20") as server,
        captured(tmp_path, server.url(), fps=15, frozen_after=1.5) as capture,
    ):
        beat = capture.until_state("frozen")
        assert beat["last_frame_mono_ns"] is not None
        assert [b for b in capture.beats if b["state"] == "streaming"]


@pytest.mark.slow
def test_a_connection_that_learned_its_interval_times_out_by_itself(tmp_path: Path) -> None:
    """After one reconnect the read time-out is the camera's own: a stall ends inside the process, without a kill."""
    server = RtspServer(*SMALL)
    with rtsp_server(*SMALL) as first:
        server.port = first.port
        with captured(tmp_path, first.url(), fps=15) as capture:
            list(capture.frames(15))
            first.kill()
            capture.until_state("waiting")
            stalling = RtspServer(*SMALL, "--stall-after", "40", port=first.port)
            stalling.start()
            try:
                list(capture.frames(10))
                seen = len(capture.beats)
                beat = capture.until_state("waiting", after=seen)
                assert "stopped delivering" in beat["last_error"]
                assert longest_silence_s(capture) <= 0
            finally:
                stalling.kill()
