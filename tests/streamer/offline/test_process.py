"""``vedette process``: the same files every time, in the format others score, and clear outcomes for bad input."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from vedette.streamer.cli import main
from vedette.streamer.errors import VedetteError
from vedette.streamer.offline.process import camera_name
from vedette.streamer.offline.videofile import Ahead

CONFIG = """
version: 1
site: yard
cameras: {}
defaults:
  zones: {all: [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]}
  rules:
    - {kind: zone, zone: all, classes: [person]}
    - {kind: loiter, zone: all, seconds: 2}
    - {kind: crowd, count: 2, schedule: "Mon-Fri 08:00-09:00"}
"""


def write_clip(path: Path, pictures: list[np.ndarray], fps: float = 10.0) -> Path:
    h, w = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (w, h))
    assert writer.isOpened()
    for picture in pictures:
        writer.write(picture)
    writer.release()
    return path


def empty_scene(n: int) -> list[np.ndarray]:
    return [np.full((120, 160, 3), 60 + k, np.uint8) for k in range(n)]


@pytest.fixture(scope="module")
def people(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first four seconds of pedestrians."""
    capture = cv2.VideoCapture(str(data_dir / "clips" / "vtest.avi"))
    pictures = [capture.read()[1] for _ in range(40)]
    capture.release()
    return write_clip(tmp_path_factory.mktemp("clip") / "Campus 1.mp4", pictures)


@pytest.fixture
def process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command: exit status, standard output, standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        config = tmp_path / "config.yaml"
        config.write_text(CONFIG)
        status = main(["process", *[str(config) if word == "CONFIG" else str(word) for word in words]])
        return status, *capsys.readouterr()

    return run


def alerts_in(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "alerts.jsonl").read_text().splitlines()]


@pytest.mark.data
def test_two_runs_are_byte_identical_and_complete(people: Path, tmp_path: Path, process: Callable) -> None:
    """Tracks and alerts are the same bytes twice; every incident that starts also ends, the last ones with the file."""
    for name in ("one", "two"):
        status, out, _ = process(people, "--config", "CONFIG", "--out", tmp_path / name)
        assert status == 0
    one, two = (tmp_path / name / "Campus 1" for name in ("one", "two"))
    for file in ("tracks.txt", "alerts.jsonl"):
        assert (one / file).read_bytes() == (two / file).read_bytes() != b""
    alerts = alerts_in(one)
    assert [alert["seq"] for alert in alerts] == list(range(1, len(alerts) + 1))
    assert [alert["prev"] for alert in alerts] == [None, *range(1, len(alerts))]
    assert {alert["camera"] for alert in alerts} == {"campus-1"}
    open_ids: dict[str, int] = {}
    for alert in alerts:
        assert alert["rev"] == open_ids.pop(alert["id"], -1) + 1
        if alert["phase"] != "end":
            open_ids[alert["id"]] = alert["rev"]
    assert open_ids == {}
    last = alerts[-1]
    assert (last["phase"], last["explain"]["reason"]) == ("end", "end of file")
    assert last["score"] == last["explain"]["peak_score"]
    assert last["latency_ms"] == {"capture": None, "infer": None, "total": None}
    assert last["stream"] is None
    assert {alert["rule"] for alert in alerts} == {"zone:all", "loiter:all"}, "1970-01-01 00:00 is outside the schedule"
    assert json.loads(out)["alerts"]["zone:all"]["start"] > 0


@pytest.mark.data
def test_tracks_are_motchallenge_lines_of_source_frames(people: Path, tmp_path: Path, process: Callable) -> None:
    """1-based frames in order, ten columns, pixels of the source, a positive size; no id twice in a frame."""
    process(people, "--out", tmp_path)
    rows = [line.split(",") for line in (tmp_path / "Campus 1" / "tracks.txt").read_text().splitlines()]
    assert all(len(row) == 10 and row[7:] == ["-1", "-1", "-1"] for row in rows)
    table = np.array([[float(v) for v in row] for row in rows])
    frames = table[:, 0]
    assert frames.min() >= 1
    assert 38 <= frames.max() <= 40
    assert (np.diff(frames) >= 0).all()
    assert len({(row[0], row[1]) for row in rows}) == len(rows)
    assert (table[:, 4:6] > 0).all()
    assert table[:, 2].max() > 100, "pixels, not shares of the picture"
    parked = [line.split(",") for line in (tmp_path / "Campus 1" / "tracks.car.txt").read_text().splitlines()]
    assert all(float(row[2]) > 640 and float(row[3]) < 60 for row in parked), "the two that are parked, and no other"


@pytest.mark.data
def test_start_fps_and_annotate_do_what_they_say(people: Path, tmp_path: Path, process: Callable) -> None:
    """Time starts at --start in its zone (which the schedule reads), --fps thins, --annotate leaves a clip."""
    start = ("--start", "2026-01-05T08:30:00+05:00")  # a Monday
    status, out, _ = process(people, "--config", "CONFIG", "--out", tmp_path, "--fps", "5", *start, "--annotate")
    assert status == 0
    summary = json.loads(out)
    assert (summary["frames"], summary["analysed"]) == (40, 20)
    folder = tmp_path / "Campus 1"
    alerts = alerts_in(folder)
    assert alerts[0]["time"].startswith("2026-01-05T03:30:00.")
    assert "crowd" in {alert["rule"] for alert in alerts}
    frames = {int(line.split(",")[0]) for line in (folder / "tracks.txt").read_text().splitlines()}
    assert frames <= set(range(1, 41, 2)) | set(range(2, 41, 2))
    assert len(frames) <= 20
    clip = cv2.VideoCapture(str(folder / "annotated.mp4"))
    assert (clip.get(cv2.CAP_PROP_FRAME_COUNT), clip.get(cv2.CAP_PROP_FPS)) == (20, 5)
    clip.release()


def test_a_file_that_shows_nothing_leaves_empty_files(tmp_path: Path, process: Callable) -> None:
    """Nobody there is a result too: every file is written, and older results are gone."""
    video = write_clip(tmp_path / "quiet.mp4", empty_scene(5))
    (tmp_path / "out" / "quiet").mkdir(parents=True)
    (tmp_path / "out" / "quiet" / "annotated.mp4").write_bytes(b"old")
    status, _, _ = process(video, "--out", tmp_path / "out")
    assert status == 0
    written = {path.name: path.stat().st_size for path in (tmp_path / "out" / "quiet").iterdir()}
    labels = ("bicycle", "car", "motorcycle", "bus", "truck")
    assert written.keys() == {"tracks.txt", "alerts.jsonl", "summary.json", *(f"tracks.{x}.txt" for x in labels)}
    assert written["tracks.txt"] == written["alerts.jsonl"] == 0


def test_one_bad_file_does_not_stop_the_others(tmp_path: Path, process: Callable) -> None:
    """A text file and an empty one are told by name, the good one is processed, the exit status is 4."""
    good = write_clip(tmp_path / "good.mp4", empty_scene(3))
    (tmp_path / "text.mp4").write_text("this is no video")
    (tmp_path / "nothing.mp4").touch()
    videos = [tmp_path / "text.mp4", good, tmp_path / "nothing.mp4", tmp_path / "absent.mp4"]
    status, _, err = process(*videos, "--out", tmp_path / "out")
    assert status == 4
    assert (tmp_path / "out" / "good" / "summary.json").exists()
    for name in ("text.mp4", "nothing.mp4", "absent.mp4"):
        assert any(name in line and line.startswith("vedette: ") for line in err.splitlines())


def test_a_truncated_file_gives_what_can_be_decoded(tmp_path: Path, process: Callable) -> None:
    """Half of an AVI is processed as far as it goes; half of an MP4 has lost its index and is told, exit 4."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 120, 160, 3), np.uint8)
    for name, expected in (("half.avi", 0), ("half.mp4", 4)):
        video = write_clip(tmp_path / name, list(noise))
        video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
        status, out, _ = process(video, "--out", tmp_path / "out")
        assert status == expected, name
        if expected == 0:
            assert 5 < json.loads(out)["analysed"] < 40


def test_two_files_of_one_stem_are_refused_before_anything_is_done(tmp_path: Path, process: Callable) -> None:
    """Their results would overwrite each other: exit 2, nothing written."""
    status, _, err = process(tmp_path / "a" / "x.mp4", tmp_path / "b" / "x.avi", "--out", tmp_path / "out")
    assert status == 2
    assert "'x'" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [("--fps", "0"), ("--start", "yesterday"), ("--start", "1969-12-31")])
def test_wrong_arguments_are_refused(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """argparse's exit 2, with what is needed."""
    with pytest.raises(SystemExit, match="2"):
        main(["process", "x.mp4", *words])
    assert "needs" in capsys.readouterr().err


def test_no_engine_is_exit_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A detector that does not exist is told with what does."""
    config = tmp_path / "c.yaml"
    config.write_text("version: 1\ncameras: {}\nengine: {detector: no-such-thing}\n")
    assert main(["process", "x.mp4", "--config", str(config), "--out", str(tmp_path)]) == 3
    assert "vedette-nano" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "name"),
    [("Campus 1.mp4", "campus-1"), ("ÄÖ.mp4", "video"), ("x" * 50 + ".avi", "x" * 32), ("a_b-1.avi", "a_b-1")],
)
def test_a_file_gets_a_name_that_cameras_may_have(path: str, name: str) -> None:
    """Whatever the file is called."""
    assert camera_name(Path(path)) == name


def test_reading_ahead_keeps_order_and_errors() -> None:
    """Items arrive in order, an error in its place, and closing early leaves no thread waiting."""

    def items():
        yield from range(20)
        raise VedetteError("at the end")

    taken = []
    with pytest.raises(VedetteError, match="at the end"):
        taken.extend(iter(Ahead(items(), 3)))
    ahead = Ahead(iter(range(1000)), 3)
    assert next(iter(ahead)) == 0
    ahead.close()
    assert not ahead._thread.is_alive()


@pytest.mark.data
def test_clips_are_films_of_the_incidents_told_as_a_later_rev(people: Path, tmp_path: Path, process: Callable) -> None:
    """With --clips every incident has its mp4, named and hashed in a later rev; the same bytes every time."""
    films: list[dict[str, bytes]] = []
    for name in ("one", "two"):
        assert process(people, "--config", "CONFIG", "--clips", "--out", tmp_path / name)[0] == 0
        folder = tmp_path / name / "Campus 1"
        films.append({path.name: path.read_bytes() for path in folder.glob("clips/*.mp4")})
        alerts = alerts_in(folder)
        started = {alert["id"] for alert in alerts if alert["phase"] == "start"}
        told = {alert["id"]: alert for alert in alerts if alert["evidence"]["clip"]}
        assert set(told) == started == {file.removesuffix(".mp4") for file in films[-1]}
        for alert in told.values():
            film = folder / alert["evidence"]["clip"]
            assert hashlib.sha256(film.read_bytes()).hexdigest() == alert["evidence"]["clip_sha256"]
            assert alert["rev"] > 0
        assert cv2.VideoCapture(str(film)).read()[0]
    assert films[0] == films[1]
