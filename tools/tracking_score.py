"""Score tracking results with ``trackeval``: a JSON job on stdin, raw counts a sequence on stdout.

Imports trackeval, numpy and scipy only, so it runs in any interpreter that has them (the peers' virtual
environment); ``tools/eval_tracking.py`` starts it. Job: ``{"gt": DIR, "results": DIR, "trackers": [..],
"sequences": {name: frames}, "format": "mot" | "kitti", "class": "pedestrian" | "car"}``, where ``DIR/<sequence>/gt/gt.txt`` is the
ground truth of MOTChallenge (KITTI: ``DIR/label_02/<sequence>.txt`` and the seqmap) and ``<results>/<tracker>/data/<sequence>.txt`` a result.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from typing import Any

import numpy as np

for _gone in ("float", "int", "bool"):  # trackeval uses names that numpy 1.24 removed
    if not hasattr(np, _gone):
        setattr(np, _gone, {"float": float, "int": int, "bool": bool}[_gone])

HOTA_FIELDS = ("HOTA_TP", "HOTA_FN", "HOTA_FP", "AssA", "LocA")
CLEAR_FIELDS = ("CLR_TP", "CLR_FN", "CLR_FP", "IDSW", "MT", "ML", "Frag")
IDENTITY_FIELDS = ("IDTP", "IDFN", "IDFP")


def dataset_from_job(job: dict[str, Any]) -> Any:
    """The trackeval dataset that reads the job's folders."""
    from trackeval.datasets import Kitti2DBox, MotChallenge2DBox

    common = {
        "GT_FOLDER": job["gt"],
        "TRACKERS_FOLDER": job["results"],
        "TRACKERS_TO_EVAL": list(job["trackers"]),
        "CLASSES_TO_EVAL": [job.get("class", "pedestrian")],
        "PRINT_CONFIG": False,
    }
    if job.get("format") == "kitti":
        return Kitti2DBox(common)
    return MotChallenge2DBox(
        {**common, "BENCHMARK": "MOT17", "SKIP_SPLIT_FOL": True, "SEQ_INFO": dict(job["sequences"])}
    )


def score_sequence(dataset: Any, tracker: str, sequence: str, cls: str) -> dict[str, Any]:
    """Raw counts of HOTA, CLEAR and Identity, additive over sequences (AssA and LocA weighted by HOTA_TP)."""
    from trackeval.metrics import CLEAR, HOTA, Identity

    data = dataset.get_preprocessed_seq_data(dataset.get_raw_seq_data(tracker, sequence), cls)
    hota = HOTA().eval_sequence(data)
    clear = CLEAR({"PRINT_CONFIG": False}).eval_sequence(data)
    identity = Identity({"PRINT_CONFIG": False}).eval_sequence(data)
    counts: dict[str, Any] = {name: np.asarray(hota[name]).tolist() for name in HOTA_FIELDS}
    counts |= {name: int(clear[name]) for name in CLEAR_FIELDS}
    counts |= {name: int(identity[name]) for name in IDENTITY_FIELDS}
    return counts


def run_job(job: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """{tracker: {sequence: counts}}; what trackeval prints is dropped unless it fails."""
    noise = io.StringIO()
    try:
        with contextlib.redirect_stdout(noise):
            dataset = dataset_from_job(job)
            cls = job.get("class", "pedestrian")
            return {
                tracker: {seq: score_sequence(dataset, tracker, seq, cls) for seq in job["sequences"]}
                for tracker in job["trackers"]
            }
    except Exception:
        print(noise.getvalue()[-2000:], file=sys.stderr)
        raise


if __name__ == "__main__":
    json.dump(run_job(json.load(sys.stdin)), sys.stdout)
