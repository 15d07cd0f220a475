"""MOTChallenge files are read as a stream, and what cannot be read is reported with file and line."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.engines.api import Detections
from vedette.streamer.errors import ConfigError
from vedette.streamer.offline.motchallenge import (
    SeqInfo,
    parse_line,
    read_frames,
    read_seqinfo,
    reportable,
    write_tracks,
)
from vedette.streamer.types import Tracks

INFO = SeqInfo("yard", 10.0, 5, 200, 100)


def read(text: str, info: SeqInfo = INFO) -> tuple[dict[int, Detections], list[str]]:
    """The frames of a file's text and the reports."""
    reports: list[str] = []
    frames = dict(read_frames(io.StringIO(text), info, reports.append, where="det.txt"))
    return frames, reports


def test_a_line_becomes_a_normalised_detection_of_its_frame() -> None:
    """Pixels are divided by the picture's size, and every frame of the sequence appears, empty ones too."""
    frames, reports = read("2,-1,20,10,40,50,0.9\n4,-1,0,0,200,100,0.5,-1,-1,-1\n")
    assert reports == []
    assert [len(frames[k]) for k in range(1, 6)] == [0, 1, 0, 1, 0]
    assert frames[2].xyxy[0] == pytest.approx([0.1, 0.1, 0.3, 0.6])
    assert frames[4].score[0] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("1,-1,1,1", "needs frame,id,x,y,w,h"),
        ("1,-1,one,1,5,5,0.9", "needs numbers"),
        ("0,-1,1,1,5,5,0.9", "frame number"),
        ("1.5,-1,1,1,5,5,0.9", "frame number"),
        ("nan,-1,1,1,5,5,0.9", "frame number"),
        ("1,-1,1,1,0,5,0.9", "above 0"),
        ("1,-1,1,1,5,-5,0.9", "above 0"),
        ("1,-1,nan,1,5,5,0.9", "finite"),
        ("1,-1,1e300,1,5,5,0.9", "up to 1e+09"),
        ("6,-1,1,1,5,5,0.9", "seqLength 5"),
    ],
)
def test_a_bad_line_is_reported_and_skipped(line: str, rule: str) -> None:
    """The report names file, line and rule, and the lines around it are used."""
    frames, reports = read(f"1,-1,1,1,5,5,0.9\n{line}\n2,-1,1,1,5,5,0.9\n")
    assert len(reports) == 1
    assert reports[0].startswith("det.txt:2: ")
    assert rule in reports[0]
    assert len(frames[1]) == len(frames[2]) == 1


def test_a_frame_that_goes_back_is_reported() -> None:
    """An online tracker cannot return to an earlier frame, so such a line is refused."""
    frames, reports = read("3,-1,1,1,5,5,0.9\n2,-1,1,1,5,5,0.9\n")
    assert reports == ["det.txt:2: needs frames in order (now at 3), got '2,-1,1,1,5,5,0.9'"]
    assert len(frames[3]) == 1
    assert len(frames[2]) == 0


def test_a_frame_is_handed_over_before_the_rest_is_read() -> None:
    """The reader looks no further than the first line of the next frame."""
    taken = []

    def lines() -> object:
        for k in range(1, 6):
            taken.append(k)
            yield f"{k},-1,1,1,5,5,0.9"

    stream = read_frames(lines(), INFO, print, where="det.txt")
    assert next(stream)[0] == 1
    assert taken == [1, 2]


def test_an_enormous_gap_is_not_counted_through() -> None:
    """Without a length, a leap of a billion frames costs nothing."""
    frames, _ = read("1,-1,1,1,5,5,0.9\n1000000000,-1,1,1,5,5,0.9\n", SeqInfo("yard", 10.0, 0, 200, 100))
    assert max(frames) == 1_000_000_000
    assert len(frames) < 5


def test_an_empty_file_is_a_sequence_of_empty_frames() -> None:
    """Nothing seen is not nothing happened."""
    frames, reports = read("")
    assert (list(frames), reports) == ([1, 2, 3, 4, 5], [])


@settings(max_examples=200)
@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """parse_line gives six finite numbers or raises ValueError, whatever the text."""
    try:
        values = parse_line(text)
    except ValueError:
        return
    assert np.isfinite(values).all()


def test_seqinfo_is_read_and_its_faults_are_named(tmp_path: Path) -> None:
    """Each missing or wrong key is a ConfigError that names it."""
    path = tmp_path / "seqinfo.ini"
    good = "[Sequence]\nname=yard\nframeRate=25\nseqLength=100\nimWidth=640\nimHeight=480\n"
    path.write_text(good)
    assert read_seqinfo(path) == SeqInfo("yard", 25.0, 100, 640, 480)
    for key, wrong in (("frameRate", "0"), ("imWidth", "wide"), ("imHeight", "-1"), ("seqLength", "nan")):
        path.write_text("\n".join(f"{key}={wrong}" if line.startswith(key) else line for line in good.splitlines()))
        with pytest.raises(ConfigError, match=key):
            read_seqinfo(path)
    path.write_text("imWidth=5\n")
    with pytest.raises(ConfigError, match=r"seqinfo\.ini"):
        read_seqinfo(path)
    with pytest.raises(ConfigError, match=r"missing\.ini"):
        read_seqinfo(tmp_path / "missing.ini")


def test_only_confirmed_tracks_seen_in_the_frame_are_written() -> None:
    """Tentative and coasting tracks stay out of a result file; boxes are pixels again."""
    n = 3
    tracks = Tracks(
        np.array([7, 8, 9]),
        np.tile(np.array([[0.1, 0.1, 0.3, 0.6]], np.float32), (n, 1)),
        np.zeros((n, 2), np.float32),
        np.full(n, 0.9, np.float32),
        np.zeros(n, np.int32),
        np.ones(n, np.float32),
        np.zeros(n, np.float32),
        np.array([True, False, True]),
        np.array([0, 1, -1], np.int32),
    )
    file = io.StringIO()
    assert write_tracks(file, 4, reportable(tracks), 200, 100) == 1
    assert file.getvalue() == "4,7,20.00,10.00,40.00,50.00,0.9000,-1,-1,-1\n"
