"""``vedette process``: files through the same path as cameras, as fast as possible, the same result every time.

Writes ``OUT/<stem>/`` with tracks.txt (MOTChallenge, persons), tracks.<label>.txt, alerts.jsonl, summary.json and,
with ``--annotate``, annotated.mp4, with ``--clips`` clips/ID.mp4. Of a configuration it uses ``engine``, ``site`` and
``defaults`` (zones, lines and rules may stand there). Exit 2 when the configuration or the arguments are wrong, 4 when a file cannot be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from vedette.streamer.config import Config, load_config
from vedette.streamer.errors import ConfigError, SourceError
from vedette.streamer.log import setup_logging
from vedette.streamer.offline.process import EPOCH, Options, Progress, process_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette process`` takes."""
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO", help="video files")
    parser.add_argument("--config", type=Path, help="YAML; engine and defaults are used (cameras: {} is allowed)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the results (default: out)")
    parser.add_argument("--annotate", action="store_true", help="also write annotated.mp4")
    parser.add_argument("--clips", action="store_true", help="also write clips/ID.mp4 of every incident")
    parser.add_argument("--detections", action="store_true", help="also write det.txt, what the tracker was given")
    parser.add_argument("--fps", type=_positive, help="pictures a second that are analysed (default: every one)")
    parser.add_argument("--start", type=_moment, default=EPOCH, help="time of the first picture (default: 1970-01-01)")


def run(args: argparse.Namespace) -> int:
    """Process every file; one that cannot be read does not stop the others."""
    setup_logging()
    _check_stems(args.videos)
    config = Config(version=1, cameras={}) if args.config is None else load_config(args.config).config
    from vedette.streamer.infer.engine import open_engine, open_stage

    options = Options(
        config.defaults, config.site, args.start, args.fps, args.annotate, args.detections,
        skip_still_s=config.engine.skip_still or 0.0, clips=args.clips,
    )  # fmt: skip
    engine = open_engine(config.engine)
    failed = 0
    try:
        stage = open_stage(config.engine, engine.spec, [config.defaults], 1)
        for video in args.videos:
            try:
                with _progress(video) as progress:
                    summary = process_file(video, args.out / video.stem, engine, options, progress, stage)
            except SourceError as error:
                print(f"vedette: {error}", file=sys.stderr)
                failed += 1
                continue
            if summary["fault"]:
                print(f"vedette: {video}: breaks after {summary['frames']} frames: {summary['fault']}", file=sys.stderr)
            print(_sentence(summary, args.out / video.stem) if sys.stdout.isatty() else json.dumps(summary), flush=True)
    finally:
        engine.close()
    return SourceError.exit_code if failed else 0


def _check_stems(videos: list[Path]) -> None:
    """Results are named after stems, so two files of one stem would overwrite each other."""
    seen: dict[str, Path] = {}
    for video in videos:
        if video.stem in seen:
            raise ConfigError(
                f"vedette process: two files have the stem {video.stem!r}, got {seen[video.stem]} and {video}; "
                "process them into different --out folders"
            )
        seen[video.stem] = video


@contextmanager
def _progress(video: Path) -> Iterator[Progress]:
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    words = "[bold]{task.description}", "{task.completed}/{task.total} pictures", "{task.fields[fps]:.0f} fps"
    bar = Progress(
        TextColumn(words[0]), BarColumn(), TextColumn(words[1]), TextColumn(words[2]),
        TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True),
    )  # fmt: skip
    with bar:
        task = bar.add_task(video.name, total=_frames(video), fps=0.0)
        yield lambda done: bar.update(task, completed=done, fps=bar.tasks[0].finished_speed or bar.tasks[0].speed or 0)


def _frames(video: Path) -> int | None:
    """How many frames the file claims to hold; only the progress bar believes it."""
    import cv2

    capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)
    frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return frames if frames > 0 else None


def _sentence(summary: dict[str, object], folder: Path) -> str:
    tracks = summary["tracks"]
    assert isinstance(tracks, dict)
    seen = ", ".join(f"{count} {label}" for label, count in tracks.items()) or "nothing"
    return f"{folder}: {summary['analysed']} pictures, tracks of {seen}, alerts {json.dumps(summary['alerts'])}"


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"needs pictures a second in 0..1000, got {text}")
    return value


def _moment(text: str) -> datetime:
    """A date or time of RFC 3339; UTC where it names no zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"needs a form like 2026-01-31T18:00:00+01:00, got {text!r}") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment < EPOCH:
        raise argparse.ArgumentTypeError(f"needs 1970-01-01 or later, got {text!r}")
    return moment
