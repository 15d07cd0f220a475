"""Line-crossing counts: our tracker's and ByteTrack's on the same detections of our detector, against the true ones.

    python tools/eval_counting.py --data DIR --peers-python peers/bin/python --out counting.json

DIR holds ``clips/`` and ``mot/``. Every picture goes through the product's default detector once (``--cache``
keeps what it found), the same boxes go to every tracker, and every tracker's tracks go through the product's
own line rule, so that only identity differs. The error of a line and direction is |counted - true|; per hour, it
is the sum over all lines and directions of a clip, divided by hours of clip and number of lines. ``bytetrack`` runs
with its defaults, ``bytetrack-matched`` with our score thresholds. Where truth comes from: ``tools/counting_data.py``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from counting_data import CLIPS, Clip, Line, Seen, detect
from eval_tracking import in_peers
from single_picture import write_report

from vedette.streamer.rules.line import LineConfig
from vedette.streamer.rules.view import Places, View
from vedette.streamer.tracking.tracker import Tracker, TrackerConfig
from vedette.streamer.types import Tracks

Count = dict[str, tuple[int, int]]
PEERS = ("bytetrack", "bytetrack-matched", "ocsort")


def count_lines(
    tracks: Iterator[Tracks], time_s: Sequence[float], aspect: float, lines: dict[str, Line], labels: Sequence[str]
) -> Count:
    """line -> (in, out) crossings that the product's line rule finds in the tracks of every picture."""
    rules = {name: LineConfig(name=name, line=name).rule(Places(lines={name: line})) for name, line in lines.items()}
    found = {name: {"in": 0, "out": 0} for name in lines}
    for picture, now_s in zip(tracks, time_s, strict=True):
        view = View(picture, labels, now_s, aspect=aspect)
        for name, rule in rules.items():
            for signal in rule.step(view):
                if signal.phase == "start":
                    found[name][str(signal.explain["direction"])] += 1
    return {name: (by["in"], by["out"]) for name, by in found.items()}


def sure_tracks(rows: np.ndarray, last: int, size_px: tuple[int, int]) -> Iterator[Tracks]:
    """Tracks of every picture from MOTChallenge rows: frame, id, x, y, w, h, score."""
    size = np.array([*size_px, *size_px], np.float64)
    for frame in range(1, last + 1):
        part = rows[rows[:, 0] == frame]
        n = len(part)
        xyxy = np.concatenate([part[:, 2:4], part[:, 2:4] + part[:, 4:6]], axis=1) / size
        zero = np.zeros(n, np.float32)
        yield Tracks(
            part[:, 1].astype(np.int64), xyxy.astype(np.float32), np.zeros((n, 2), np.float32), zero + 1,
            np.zeros(n, np.int32), zero, zero, np.ones(n, np.bool_), np.arange(n, dtype=np.int32),
        )  # fmt: skip


def our_tracks(seen: Seen, clip: Clip, config: TrackerConfig | None) -> Iterator[Tracks]:
    """Our tracks of every picture, as the rules get them."""
    tracker = Tracker(config, labels=seen.labels)
    for time_s, detections in zip(times_of(seen, clip), seen.detections, strict=True):
        wanted = np.isin([seen.labels[i] for i in detections.label.tolist()], clip.kinds).astype(np.bool_)
        (tracks,) = tracker.update([clip.file], [time_s], [detections[wanted]], [seen.aspect])
        yield tracks


def times_of(seen: Seen, clip: Clip) -> list[float]:
    """Seconds of every picture; evenly spaced where the file's header is wrong."""
    return seen.time_s if clip.fps is None else [k / clip.fps for k in range(len(seen.time_s))]


def write_detections(seen: Seen, clip: Clip, path: Path) -> None:
    """The same detections as a MOTChallenge file, for the peers."""
    w, h = seen.size_px
    with path.open("w", encoding="utf-8") as file:
        for frame, d in enumerate(seen.detections, 1):
            for box, score, label in zip(d.xyxy.tolist(), d.score.tolist(), d.label.tolist(), strict=True):
                if seen.labels[label] in clip.kinds:
                    x1, y1, x2, y2 = box
                    file.write(
                        f"{frame},-1,{x1 * w:.3f},{y1 * h:.3f},{(x2 - x1) * w:.3f},{(y2 - y1) * h:.3f},{score:.5f}\n"
                    )


def read_rows(path: Path) -> np.ndarray:
    """MOTChallenge rows [N,7]; empty for an empty file."""
    if not path.stat().st_size:
        return np.zeros((0, 7))
    return np.loadtxt(path, delimiter=",", ndmin=2, usecols=range(7))


def count_clip(clip: Clip, data: Path, cache: Path, python: str) -> dict[str, Any]:
    """Counts of every tracker on one clip, their errors, and the same per hour."""
    seen = detect(data / "clips" / clip.file, cache)
    times = times_of(seen, clip)
    n, hours = len(times), (times[-1] - times[0]) / 3600
    counts: dict[str, Count] = {
        "vedette": count_lines(
            our_tracks(seen, clip, TrackerConfig.for_detector(seen.detector)),
            times,
            seen.aspect,
            clip.lines,
            seen.labels,
        )
    }
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_detections(seen, clip, work / "det.txt")
        rate = (n - 1) / (times[-1] - times[0])
        asked = [{"name": "clip", "det": str(work / "det.txt"), "frame_rate": rate, "length": n}]
        c = TrackerConfig.for_detector(seen.detector)
        matched = {
            "base": "bytetrack",
            "track_activation_threshold": c.score_new,
            "high_conf_det_threshold": c.score_high,
        }
        job = {"peers": list(PEERS), "out": str(work), "sequences": asked, "variants": {"bytetrack-matched": matched}}
        in_peers("tracking_peers.py", job, python)
        for peer in PEERS:
            rows = read_rows(work / peer / "data" / "clip.txt")
            counts[peer] = count_lines(sure_tracks(rows, n, seen.size_px), times, seen.aspect, clip.lines, seen.labels)
    if clip.gt is not None:
        rows = read_rows(data / "mot" / clip.gt / "gt" / "gt.txt")
        truth = count_lines(sure_tracks(rows, n, seen.size_px), times, seen.aspect, clip.lines, seen.labels)
    else:
        truth = clip.truth or {}
    error = {
        who: sum(abs(a - b) for line in truth for a, b in zip(found[line], truth[line], strict=True))
        for who, found in counts.items()
    }
    return {
        "pictures": n,
        "hours": hours,
        "truth_from": f"ground truth {clip.gt}" if clip.gt else f"counted by eye: {clip.note}",
        "truth": truth,
        "counts": counts,
        "crossings": sum(a + b for a, b in truth.values()),
        "error": error,
        "error_per_hour_and_line": {who: e / hours / len(truth) for who, e in error.items()},
    }


def main(argv: list[str] | None = None) -> int:
    """Count on every clip; table on stderr, JSON to ``--out`` or stdout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with clips/ and mot/")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "vedette-counting")
    parser.add_argument("--peers-python", default=os.environ.get("VEDETTE_PEERS_PYTHON", sys.executable))
    parser.add_argument("--only", nargs="*", default=[], help="only these clips")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    report: dict[str, Any] = {"schema": "vedette.eval_counting/1", "clips": {}}
    for clip in CLIPS:
        if args.only and clip.file not in args.only:
            continue
        part = count_clip(clip, args.data, args.cache, args.peers_python)
        report["clips"][clip.file] = part
        print(f"{clip.file}: {part['crossings']} crossings in {3600 * part['hours']:.0f} s", file=sys.stderr)
        for who, found in part["counts"].items():
            rate = part["error_per_hour_and_line"][who]
            print(f"  {who:18s} error {part['error'][who]:3d} ({rate:7.1f} an hour and line)  {found}", file=sys.stderr)
        print(f"  {'truth':18s} {part['truth']}", file=sys.stderr)
    write_report(report, args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
