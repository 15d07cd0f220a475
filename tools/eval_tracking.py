"""Our tracker against PyPI ``trackers`` and ``norfair`` on the same detections, scored by ``trackeval``.

    python -m venv peers && peers/bin/pip install trackers==2.6.1
    peers/bin/pip install --no-deps norfair==2.3.0 filterpy trackeval==1.3.0
    python tools/eval_tracking.py compare --data DIR --peers-python peers/bin/python --out report.json
    python tools/eval_tracking.py tune --data DIR --peers-python peers/bin/python --out tuned.json
    python tools/eval_tracking.py score --gt DIR --result tracks.txt --peers-python peers/bin/python
    python tools/eval_tracking.py peers --det det.txt --seqinfo seqinfo.ini --out DIR [--gt DIR] --peers-python ...

The peers need OpenCV and numpy versions of their own, hence the second environment (``--no-deps`` because
norfair asks for numpy < 2 and runs on 2). Without ``--peers-python`` or $VEDETTE_PEERS_PYTHON this
interpreter is used. ``compare`` runs ours through the very code of ``vedette track``, with its default config, and every
peer twice: with its defaults, and (``NAME-tuned``) with what ``tune`` found for it on each set (``tools/tracking_tuning.py``).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence as Many
from pathlib import Path
from typing import Any

import numpy as np
from single_picture import write_report
from tracking_data import Sequence, kitti_result, names_in, prepare, rate_of, stride_of, write_seqmap
from tracking_peers import NAMES
from tracking_tuning import FRAMES, GRID, SPLIT, around, together, variants_of

TOOLS = Path(__file__).resolve().parent
OURS = "vedette"
#: sequences the defaults were searched on. The other open sequences were in view for the last choices (see
#: TrackerConfig), so "validation" below is optimistic: only sealed sequences decide.
TUNED_ON = {name: sequences for name, sequences in SPLIT.items() if name != "MOT15"}
FIELDS = ("HOTA", "DetA", "AssA", "IDF1", "MOTA", "IDSW")
Counts = dict[str, Any]


def in_peers(script: str, job: dict[str, Any], python: str) -> Any:
    """Run a sibling script in the peers' interpreter with the job on stdin; its JSON answer."""
    done = subprocess.run(
        [python, str(TOOLS / script)], input=json.dumps(job), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"eval_tracking: {script} failed in {python}: {done.stderr.strip()[-1500:]}")
    return json.loads(done.stdout[done.stdout.index("{") :])


def summarise(parts: Many[Counts]) -> dict[str, float]:
    """HOTA, DetA, AssA, IDF1, MOTA (per cent) and IDSW of several sequences taken together, as trackeval combines them."""

    def total(name: str) -> Any:
        return np.sum([np.asarray(p[name], np.float64) for p in parts], axis=0)

    tp = total("HOTA_TP")
    ass = np.sum([np.asarray(p["AssA"]) * np.asarray(p["HOTA_TP"]) for p in parts], axis=0) / np.maximum(tp, 1)
    det = tp / np.maximum(tp + total("HOTA_FN") + total("HOTA_FP"), 1)
    truth = max(1, total("CLR_TP") + total("CLR_FN"))
    idf1 = 2 * total("IDTP") / max(1, 2 * total("IDTP") + total("IDFN") + total("IDFP"))
    return {
        "HOTA": 100 * float(np.sqrt(ass * det).mean()),
        "DetA": 100 * float(det.mean()),
        "AssA": 100 * float(ass.mean()),
        "IDF1": 100 * float(idf1),
        "MOTA": 100 * float(1 - (total("CLR_FN") + total("CLR_FP") + total("IDSW")) / truth),
        "IDSW": int(total("IDSW")),
    }


def bootstrap(ours: list[Counts], peer: list[Counts], rounds: int = 2000, seed: int = 0) -> dict[str, list[float]]:
    """95 % intervals of (ours - peer), sequences drawn with replacement, the same draw for both."""
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(ours), (rounds, len(ours)))
    gaps: dict[str, list[float]] = {"HOTA": [], "AssA": [], "IDF1": [], "MOTA": []}
    for draw in draws:
        a, b = summarise([ours[i] for i in draw]), summarise([peer[i] for i in draw])
        for name, values in gaps.items():
            values.append(a[name] - b[name])
    return {name: [round(float(q), 2) for q in np.percentile(v, [2.5, 97.5])] for name, v in gaps.items()}


def track_ours(sequences: list[Sequence], results: Path, label: str) -> dict[str, float]:
    """Run ``vedette track`` on every sequence; milliseconds a frame, reading and writing included."""
    from vedette.engines.api import LABELS
    from vedette.streamer.commands.track import track_file
    from vedette.streamer.offline.motchallenge import read_seqinfo

    spent = {}
    for s in sequences:
        out = results / OURS / "data" / f"{s.name}.txt"
        out.parent.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        track_file(s.det, out, read_seqinfo(s.seqinfo), LABELS.index(label), lambda text: print(text, file=sys.stderr))
        spent[s.name] = 1e3 * (time.perf_counter() - began) / s.length
    return spent


def asked_of(sequences: list[Sequence]) -> list[dict[str, Any]]:
    """The sequences as ``tracking_peers.py`` takes them."""
    return [{"name": s.name, "det": str(s.det), "frame_rate": s.frame_rate_hz, "length": s.length} for s in sequences]


def score_set(
    set_name: str, work: Path, sequences: list[Sequence], trackers: list[str], python: str
) -> dict[str, dict[str, Counts]]:
    """tracker -> sequence -> counts of what lies in ``work/results``."""
    results, kitti = work / "results", set_name == "KITTI"
    if kitti:
        write_seqmap(work, sequences)
        for path in results.glob("*/data/*.txt"):
            path.write_text(kitti_result(path.read_text()))
    job = {
        "gt": str(work / set_name),
        "results": str(results),
        "trackers": trackers,
        "sequences": {s.name: s.length for s in sequences},
        "format": "kitti" if kitti else "mot",
        "class": "car" if kitti else "pedestrian",
    }
    counts: dict[str, dict[str, Counts]] = in_peers("tracking_score.py", job, python)
    return counts


def run_set(
    data: Path, set_name: str, fps: float | None, peers: Many[str], python: str, only: Many[str]
) -> dict[str, Any]:
    """All trackers over one set at one rate: scores a sequence, together, and intervals against every peer."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        names = [n for n in names_in(data, set_name) if not only or n in only]
        sequences = [prepare(data, set_name, n, work, fps) for n in names]
        if not sequences:
            return {}
        results = work / "results"
        timing: dict[str, Any] = {OURS: track_ours(sequences, results, "car" if set_name == "KITTI" else "person")}
        variants = variants_of(set_name, list(peers))
        peers = [*peers, *variants]
        job = {"peers": peers, "out": str(results), "sequences": asked_of(sequences), "variants": variants}
        answer = in_peers("tracking_peers.py", job, python)
        for peer, rows in answer["timing"].items():
            timing[peer] = {name: row["ms_per_frame"] for name, row in rows.items()}
        counts = score_set(set_name, work, sequences, [OURS, *peers], python)
    return report(set_name, counts, timing, answer["versions"])


def report(set_name: str, counts: dict[str, dict[str, Counts]], timing: Any, versions: Any) -> dict[str, Any]:
    """What the JSON says of one set at one rate."""
    tuned = set(TUNED_ON.get(set_name, ()))
    trackers: dict[str, Any] = {}
    for tracker, by_sequence in counts.items():
        untouched = [c for name, c in by_sequence.items() if name not in tuned]
        trackers[tracker] = {
            "all": summarise(list(by_sequence.values())),
            "validation": summarise(untouched) if untouched and tuned else None,
            "sequences": {name: summarise([c]) for name, c in by_sequence.items()},
            "ms_per_frame": float(np.mean(list(timing[tracker].values()))),
        }
        if tracker != OURS:
            pairs = [(counts[OURS][n], by_sequence[n]) for n in by_sequence]
            trackers[tracker]["ours_minus_this_ci95"] = bootstrap([a for a, _ in pairs], [b for _, b in pairs])
    return {"trackers": trackers, "tuned_on": sorted(tuned), "versions": versions}


def print_table(title: str, part: dict[str, Any]) -> None:
    """One set at one rate, for people, on stderr: a line a tracker and a HOTA row a sequence."""
    say = lambda text: print(text, file=sys.stderr)  # noqa: E731
    names = list(part["trackers"])
    say(f"\n{title}\n{'':24s}" + "".join(f"{f:>8s}" for f in FIELDS) + "  ours - it, HOTA 95 %")
    for name in names:
        row = part["trackers"][name]
        interval = row.get("ours_minus_this_ci95", {}).get("HOTA", "")
        say(f"{name:24s}" + "".join(f"{row['all'][f]:8.2f}" for f in FIELDS) + f"  {interval}")
    say(f"{'HOTA':24s}" + "".join(f"{n:>16s}" for n in names))
    for sequence in part["trackers"][names[0]]["sequences"]:
        mark = "*" if sequence in part["tuned_on"] else " "
        values = [part["trackers"][n]["sequences"][sequence]["HOTA"] for n in names]
        say(f"{sequence + mark:24s}" + "".join(f"{v:16.2f}" for v in values))


def compare(args: argparse.Namespace) -> int:
    """``compare``: every set at every rate, table on stderr, JSON to ``--out`` or stdout."""
    python = args.peers_python
    sets: dict[str, Any] = {}
    for set_name in args.sets:
        done: dict[tuple[int, ...], dict[str, Any]] = {}
        recorded = [rate_of(args.data, set_name, n) for n in names_in(args.data, set_name)]
        for fps in args.fps:
            rate = None if fps == "native" else float(fps)
            strides = tuple(stride_of(hz, rate) for hz in recorded)
            # KITTI has 10 frames a second: asking for 15 or 10 of them is asking for all
            part = done.get(strides) or run_set(args.data, set_name, rate, args.peers, python, args.only)
            if part:
                done[strides] = part
                sets[f"{set_name}@{fps}"] = part
                print_table(f"{set_name} at {fps} fps (* tuned on)", part)
    write_report({"schema": "vedette.eval_tracking/1", "ours": OURS, "sets": sets}, args.out)
    return 0 if sets else 2


def hota_of(
    data: Path, set_name: str, settings: list[tuple[str, dict[str, float]]], python: str
) -> list[tuple[dict[str, float], float]]:
    """The settings of peers, each with its HOTA on the tuning sequences of a set."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sequences = [prepare(data, set_name, n, work, None, FRAMES) for n in SPLIT[set_name]]
        variants = {str(i): {"base": peer, **options} for i, (peer, options) in enumerate(settings)}
        job = {"peers": list(variants), "out": str(work / "results"), "sequences": asked_of(sequences)}
        in_peers("tracking_peers.py", {**job, "variants": variants}, python)
        counts = score_set(set_name, work, sequences, list(variants), python)
    found = [round(summarise(list(counts[name].values()))["HOTA"], 3) for name in variants]
    return [(options, reached) for (_, options), reached in zip(settings, found, strict=True)]


def tune_set(data: Path, set_name: str, peers: Many[str], python: str) -> dict[str, Any]:
    """peer -> the options that beat its defaults on the tuning sequences of a set, and everything tried."""
    asked = [(peer, options) for peer in peers for options in around(peer)]
    reached = hota_of(data, set_name, asked, python)
    tried = {p: [row for (name, _), row in zip(asked, reached, strict=True) if name == p] for p in peers}
    joined = hota_of(data, set_name, [(p, together(rows)) for p, rows in tried.items()], python)
    found: dict[str, Any] = {}
    for (peer, rows), last in zip(tried.items(), joined, strict=True):
        best = max([*rows, last], key=lambda row: row[1])
        print(f"{set_name} {peer}: {best[0] or 'defaults'} {best[1]} (defaults {rows[0][1]})", file=sys.stderr)
        found[peer] = {"options": best[0], "tried": [{"options": o, "HOTA": h} for o, h in [*rows, last]]}
    return found


def tune(args: argparse.Namespace) -> int:
    """``tune``: the peers' best options a set, JSON to ``--out`` or stdout; TUNED in tracking_tuning.py is from here."""
    found: dict[str, Any] = {}
    for name in args.sets:
        found[name] = tune_set(args.data, name, args.peers, args.peers_python)
        text = json.dumps({"split": SPLIT, "frames": FRAMES, "grid": GRID, "sets": found}, indent=1)
        if args.out:
            args.out.write_text(text + "\n")
    if not args.out:
        print(text)
    return 0


def score_files(gt: Path, results: dict[str, Path], python: str) -> dict[str, dict[str, float]]:
    """MOTA, IDF1, HOTA of result files against one sequence's ground-truth folder (person, IoU 0.5)."""
    truth = gt / "gt" / "gt.txt" if (gt / "gt" / "gt.txt").is_file() else gt / "gt.txt"
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "gt" / "s" / "gt").mkdir(parents=True)
        shutil.copy(truth, work / "gt" / "s" / "gt" / "gt.txt")
        last = 1
        for path in [truth, *results.values()]:
            frames = [int(float(line.split(",")[0])) for line in path.read_text().splitlines() if line.strip()]
            last = max([last, *frames])
        for name, path in results.items():
            (work / "results" / name / "data").mkdir(parents=True)
            shutil.copy(path, work / "results" / name / "data" / "s.txt")
        job = {"gt": str(work / "gt"), "results": str(work / "results"), "trackers": list(results)}
        counts = in_peers("tracking_score.py", {**job, "sequences": {"s": last}}, python)
    return {name: summarise([counts[name]["s"]]) for name in results}


def print_scores(scores: dict[str, dict[str, float]]) -> None:
    """A line a result on stderr, JSON on stdout."""
    for name, row in scores.items():
        print(f"{name:28s}" + "  ".join(f"{f} {row[f]:.2f}" for f in FIELDS), file=sys.stderr)
    print(json.dumps(scores))


def score(args: argparse.Namespace) -> int:
    """``score``: result files against one ground truth."""
    results = {(p.stem if args.result.count(p) == 1 else str(i)): p for i, p in enumerate(args.result)}
    if len(results) < len(args.result):
        results = {f"{p.parent.name}-{p.stem}-{i}": p for i, p in enumerate(args.result)}
    print_scores(score_files(args.gt, results, args.peers_python))
    return 0


def peers(args: argparse.Namespace) -> int:
    """``peers``: run peers on one detection file; with ``--gt`` also score them, and ``--result`` files with them."""
    from vedette.streamer.offline.motchallenge import read_seqinfo

    info = read_seqinfo(args.seqinfo)
    asked = [{"name": info.name, "det": str(args.det), "frame_rate": info.frame_rate_hz, "length": info.length}]
    job = {"peers": args.peers, "out": str(args.out), "sequences": asked}
    answer = in_peers("tracking_peers.py", job, args.peers_python)
    print(json.dumps(answer), file=sys.stderr)
    if args.gt:
        found = {peer: args.out / peer / "data" / f"{info.name}.txt" for peer in args.peers}
        print_scores(score_files(args.gt, {**{f"ours-{p.stem}": p for p in args.result}, **found}, args.peers_python))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    common = argparse.ArgumentParser(add_help=False)
    default = os.environ.get("VEDETTE_PEERS_PYTHON", sys.executable)
    common.add_argument("--peers-python", default=default, help="interpreter with trackers, norfair and trackeval")
    one = commands.add_parser("compare", parents=[common], help="ours and the peers over benchmark sets")
    one.add_argument("--data", type=Path, required=True, help="folder with MOT17-val, DanceTrack-val, MOT15, KITTI")
    one.add_argument("--sets", nargs="+", default=["MOT17-val", "DanceTrack-val", "MOT15", "KITTI"])
    one.add_argument("--only", nargs="*", default=[], help="only these sequences")
    one.add_argument("--fps", nargs="+", default=["native", "15", "10", "5"], help="native, or rates to thin to")
    one.add_argument("--peers", nargs="*", default=list(NAMES), choices=NAMES)
    one.add_argument("--out", type=Path)
    one.set_defaults(run=compare)
    four = commands.add_parser("tune", parents=[common], help="search the peers' options on the tuning sequences")
    four.add_argument("--data", type=Path, required=True, help="folder with MOT17-val, DanceTrack-val, MOT15, KITTI")
    four.add_argument("--sets", nargs="+", default=list(SPLIT), choices=list(SPLIT))
    four.add_argument("--peers", nargs="+", default=list(GRID), choices=list(GRID))
    four.add_argument("--out", type=Path)
    four.set_defaults(run=tune)
    two = commands.add_parser("score", parents=[common], help="result files against one ground truth (person, IoU 0.5)")
    two.add_argument("--gt", type=Path, required=True, help="folder that holds gt/gt.txt")
    two.add_argument("--result", type=Path, nargs="+", required=True)
    two.set_defaults(run=score)
    three = commands.add_parser("peers", parents=[common], help="run peers on one MOTChallenge detection file")
    three.add_argument("--det", type=Path, required=True)
    three.add_argument("--seqinfo", type=Path, required=True)
    three.add_argument("--out", type=Path, required=True)
    three.add_argument("--peers", nargs="+", default=["bytetrack", "ocsort"], choices=NAMES)
    three.add_argument("--gt", type=Path, help="score them against this folder's gt/gt.txt")
    three.add_argument("--result", type=Path, nargs="*", default=[], help="our result files, scored with them")
    three.set_defaults(run=peers)
    args = parser.parse_args(argv)
    return int(args.run(args))


if __name__ == "__main__":
    raise SystemExit(main())
