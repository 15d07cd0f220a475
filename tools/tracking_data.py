"""Lay out benchmark sequences for trackers and trackeval, at their own frame rate or thinned to a lower one.

Every sequence becomes ``<work>/<set>/<name>/{det/det.txt,seqinfo.ini,gt/gt.txt}`` in MOTChallenge form with
frames renumbered from 1; KITTI keeps its label format for scoring (``label_02`` and a seqmap).
"""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path

#: set -> the detections every tracker is given
DETECTIONS = {"MOT17-val": "yolox_x", "DanceTrack-val": "yolox_x", "MOT15": "frcnn_public", "KITTI": "permatrack"}
KITTI_RATE_HZ, KITTI_SIZE_PX = 10.0, (1242, 375)


@dataclass(frozen=True, slots=True)
class Sequence:
    """One prepared sequence: where its files are, and its rate after thinning."""

    set: str
    name: str
    folder: Path
    length: int
    frame_rate_hz: float

    @property
    def det(self) -> Path:
        """MOTChallenge detections."""
        return self.folder / "det" / "det.txt"

    @property
    def seqinfo(self) -> Path:
        """MOTChallenge sequence description."""
        return self.folder / "seqinfo.ini"


def names_in(data: Path, set_name: str) -> list[str]:
    """The sequences of a set that are on this machine, sorted."""
    if set_name == "KITTI":
        return sorted(p.stem for p in (data / "KITTI" / "permatrack").glob("*.txt"))
    return sorted(p.parent.name for p in (data / set_name).glob("*/seqinfo.ini"))


def stride_of(rate_hz: float, fps: float | None) -> int:
    """Every how many-th frame comes nearest to ``fps``; 1 for None."""
    return 1 if fps is None else max(1, round(rate_hz / fps))


def rate_of(data: Path, set_name: str, name: str) -> float:
    """Frames per second of a sequence as it was recorded."""
    if set_name == "KITTI":
        return KITTI_RATE_HZ
    info = configparser.ConfigParser()
    info.read(data / set_name / name / "seqinfo.ini")
    return float(info["Sequence"]["frameRate"])


def prepare(data: Path, set_name: str, name: str, work: Path, fps: float | None, frames: int | None = None) -> Sequence:
    """Write the sequence thinned to the rate nearest ``fps`` (every k-th frame; None: all) under ``work``.

    frames: only so many of the frames that are left, None for all.
    """
    folder = work / set_name / name
    for part in ("det", "gt"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    source = data / set_name / name
    if set_name == "KITTI":
        rate, (width, height) = KITTI_RATE_HZ, KITTI_SIZE_PX
        length = 1 + max(
            int(line.split()[0]) for line in (data / "KITTI" / "label" / f"{name}.txt").read_text().splitlines()
        )
    else:
        info = configparser.ConfigParser()
        info.read(source / "seqinfo.ini")
        part = info["Sequence"]
        rate, length = rate_of(data, set_name, name), int(part["seqLength"])
        width, height = int(part["imWidth"]), int(part["imHeight"])
    stride = stride_of(rate, fps)
    kept = min((length + stride - 1) // stride, frames or length)
    sequence = Sequence(set_name, name, folder, kept, rate / stride)
    sequence.seqinfo.write_text(
        f"[Sequence]\nname={name}\nframeRate={rate / stride:.6g}\nseqLength={kept}\n"
        f"imWidth={width}\nimHeight={height}\n"
    )
    if set_name == "KITTI":
        _kitti_files(data, name, work, sequence, stride)
    else:
        det = source / "det" / f"{DETECTIONS[set_name]}.txt"
        sequence.det.write_text(thinned(det.read_text(), stride, kept))
        (folder / "gt" / "gt.txt").write_text(thinned((source / "gt" / "gt.txt").read_text(), stride, kept))
    return sequence


def thinned(text: str, stride: int, last: int) -> str:
    """Every ``stride``-th frame of a MOTChallenge file, renumbered, up to ``last``; frame order is made ascending."""
    rows = []
    for line in text.splitlines():
        head, _, tail = line.strip().partition(",")
        if head and (int(float(head)) - 1) % stride == 0 and (int(float(head)) - 1) // stride < last:
            rows.append(((int(float(head)) - 1) // stride + 1, tail))
    rows.sort(key=lambda row: row[0])
    return "".join(f"{frame},{tail}\n" for frame, tail in rows)


def _kitti_files(data: Path, name: str, work: Path, sequence: Sequence, stride: int) -> None:
    """Car detections as MOTChallenge, labels in KITTI's own form, and the line of the seqmap."""
    lines = []
    for line in (data / "KITTI" / "permatrack" / f"{name}.txt").read_text().splitlines():
        p = line.split()
        if p[2].lower() != "car" or int(p[0]) % stride or int(p[0]) // stride >= sequence.length:
            continue
        x1, y1, x2, y2 = map(float, p[6:10])
        score = float(p[17]) if len(p) > 17 else 1.0
        lines.append(
            (int(p[0]) // stride + 1, f"-1,{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{min(1, max(0, score)):.4f}")
        )
    lines.sort(key=lambda row: row[0])
    sequence.det.write_text("".join(f"{frame},{tail}\n" for frame, tail in lines))
    gt = work / "KITTI" / "label_02"
    gt.mkdir(parents=True, exist_ok=True)
    kept = []
    for line in (data / "KITTI" / "label" / f"{name}.txt").read_text().splitlines():
        head, _, tail = line.partition(" ")
        if int(head) % stride == 0 and int(head) // stride < sequence.length:
            kept.append(f"{int(head) // stride} {tail}\n")
    (gt / f"{name}.txt").write_text("".join(kept))


def write_seqmap(work: Path, sequences: list[Sequence]) -> None:
    """KITTI's list of sequences, which trackeval reads."""
    lines = [f"{s.name} empty 000000 {s.length:06d}\n" for s in sequences]
    (work / "KITTI" / "evaluate_tracking.seqmap.training").write_text("".join(lines))


def kitti_result(text: str) -> str:
    """A MOTChallenge result as a KITTI one (0-based frames, corners, class Car)."""
    out = []
    for line in text.splitlines():
        f, i, x, y, w, h, s = line.split(",")[:7]
        x2, y2 = float(x) + float(w), float(y) + float(h)
        out.append(f"{int(f) - 1} {i} Car -1 -1 -10 {x} {y} {x2:.2f} {y2:.2f} -1 -1 -1 -1000 -1000 -1000 -10 {s}\n")
    return "".join(out)
