"""``vedette track``: only the tracker, on MOTChallenge detections, online."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vedette.engines.api import LABELS
from vedette.streamer.errors import ConfigError
from vedette.streamer.offline.motchallenge import Report, SeqInfo, read_frames, read_seqinfo, reportable, write_tracks
from vedette.streamer.tracking.tracker import Tracker, TrackerConfig

#: Reports printed before only their number is told.
MOST_REPORTS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette track`` takes."""
    parser.add_argument("--det", required=True, type=Path, help="detections: frame,id,x,y,w,h,conf in pixels, by frame")
    parser.add_argument("--seqinfo", required=True, type=Path, help="seqinfo.ini: frameRate, imWidth, imHeight")
    parser.add_argument("--out", required=True, type=Path, help="tracks: frame,id,x,y,w,h,conf,-1,-1,-1")
    parser.add_argument("--label", default="person", choices=LABELS, help="what the detections are (default: person)")


def run(args: argparse.Namespace) -> int:
    """Track ``args.det``; the lines of a frame do not depend on later lines. Exit 2 when a file cannot be used."""
    reports = 0

    def report(text: str) -> None:
        nonlocal reports
        reports += 1
        if reports <= MOST_REPORTS:
            print(text, file=sys.stderr)

    try:
        info = read_seqinfo(args.seqinfo)
        written = track_file(args.det, args.out, info, LABELS.index(args.label), report)
    except (OSError, ConfigError) as error:
        print(error, file=sys.stderr)
        return 2
    if reports > MOST_REPORTS:
        print(f"{args.det}: {reports - MOST_REPORTS} more lines were skipped", file=sys.stderr)
    print(f"{args.out}: {written} boxes written, {reports} lines skipped", file=sys.stderr)
    return 0


def track_file(
    det: Path, out: Path, info: SeqInfo, label: int, report: Report, config: TrackerConfig | None = None
) -> int:
    """Track the detections of one file into another; how many boxes were written. Raises OSError."""
    tracker = Tracker(config)
    written = 0
    with det.open(encoding="utf-8", errors="replace") as lines, out.open("w", encoding="utf-8") as file:
        for frame, detections in read_frames(lines, info, report, where=str(det), label=label):
            time_s = (frame - 1) / info.frame_rate_hz
            (tracks,) = tracker.update([info.name], [time_s], [detections], [info.aspect])
            written += write_tracks(file, frame, reportable(tracks), info.width_px, info.height_px)
    for reason, count in sorted(tracker.rejected.items()):
        report(f"{det}: the tracker refused {count} detections: {reason}")
    return written
