"""The learned worths of a pair against geometry's, on real sequences, the same detections and the same tracker.

    python tools/train_association.py --out work
    python tools/eval_association.py --data DIR --work work --peers-python peers/bin/python --out report.json

Every model of ``work`` blends into geometry's gain with ``--weight`` (0: geometry alone). For each set and rate: HOTA, AssA and IDF1 of
all, and 95 % paired bootstrap intervals over sequences of every model minus geometry, and of attention minus the GRU. ``--only-tuning``
keeps to the sequences that `tracking_tuning.SPLIT` names, where the weight was chosen.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from association_models import ENCODERS, load, worth_of
from association_pairs import Historian
from eval_tracking import bootstrap, score_set, summarise
from tracking_data import Sequence, names_in, prepare, rate_of, stride_of
from tracking_tuning import SPLIT

from vedette.engines.api import LABELS
from vedette.streamer.offline.motchallenge import read_frames, read_seqinfo, reportable, write_tracks

GEOMETRY = "geometry"
SETS = ("MOT17-val", "DanceTrack-val", "KITTI", "MOT15")


def track(sequence: Sequence, out: Path, worth: Any) -> None:
    """One sequence into a MOTChallenge result."""
    info = read_seqinfo(sequence.seqinfo)
    label = LABELS.index("car" if sequence.set == "KITTI" else "person")
    tracker = Historian(worth=worth)
    out.parent.mkdir(parents=True, exist_ok=True)
    with sequence.det.open(encoding="utf-8") as lines, out.open("w", encoding="utf-8") as file:
        for frame, detections in read_frames(lines, info, print, where=str(sequence.det), label=label):
            time_s = (frame - 1) / info.frame_rate_hz
            (tracks,) = tracker.update([info.name], [time_s], [detections], [info.aspect])
            write_tracks(file, frame, reportable(tracks), info.width_px, info.height_px)


def run_set(args: argparse.Namespace, set_name: str, fps: float | None, worths: dict[str, Any]) -> dict[str, Any]:
    """All worths over one set at one rate."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        names = [n for n in names_in(args.data, set_name) if not args.only_tuning or n in SPLIT[set_name]]
        sequences = [prepare(args.data, set_name, n, work, fps) for n in names]
        for name, worth in worths.items():
            for s in sequences:
                track(s, work / "results" / name / "data" / f"{s.name}.txt", worth)
        counts = score_set(set_name, work, sequences, list(worths), args.peers_python)
    rows = {name: list(by.values()) for name, by in counts.items()}
    held = {name: [c for n, c in by.items() if n not in SPLIT[set_name]] for name, by in counts.items()}
    against = [(a, GEOMETRY) for a in worths if a != GEOMETRY]
    if {"attention", "gru"} <= worths.keys():
        against.append(("attention", "gru"))
    return {
        "all": {name: summarise(r) for name, r in rows.items()},
        "held": {name: summarise(r) for name, r in held.items() if r},
        "ci95": {f"{a} - {b}": bootstrap(rows[a], rows[b]) for a, b in against},
    }


def print_part(title: str, part: dict[str, Any]) -> None:
    """One set at one rate, for people."""
    for name, row in part["all"].items():
        held = part["held"].get(name)
        gap = part["ci95"].get(f"{name} - {GEOMETRY}", {}).get("HOTA", "")
        rest = "" if held is None else f"  held {held['HOTA']:.2f}"
        line = "  ".join(f"{f} {row[f]:.2f}" for f in ("HOTA", "AssA", "IDF1"))
        print(f"{title:20s} {name:10s} {line}{rest}  {gap}", file=sys.stderr, flush=True)


def main() -> int:
    """Every set at every rate; JSON to ``--out`` or stdout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where train_association.py left its models")
    parser.add_argument("--peers-python", default=os.environ.get("VEDETTE_PEERS_PYTHON", sys.executable))
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--fps", nargs="+", default=["native", "15", "10", "5"])
    parser.add_argument("--weight", type=float, default=0.03)
    parser.add_argument("--only-tuning", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    worths: dict[str, Any] = {GEOMETRY: None}
    for name in ENCODERS:
        if (args.work / f"{name}.npz").is_file():
            worths[name] = worth_of(load(name, args.work / f"{name}.npz"), args.weight)
    sets: dict[str, Any] = {}
    for set_name in args.sets:
        recorded = [rate_of(args.data, set_name, n) for n in names_in(args.data, set_name)]
        done = set()
        for fps in args.fps:
            rate = None if fps == "native" else float(fps)
            strides = tuple(stride_of(hz, rate) for hz in recorded)
            if strides in done:
                continue
            done.add(strides)
            sets[f"{set_name}@{fps}"] = part = run_set(args, set_name, rate, worths)
            print_part(f"{set_name} {fps}", part)
    text = json.dumps({"schema": "vedette.eval_association/1", "weight": args.weight, "sets": sets}, indent=1)
    if args.out:
        args.out.write_text(text + "\n")
    else:
        print(text)
    return 0 if sets else 2


if __name__ == "__main__":
    sys.exit(main())
