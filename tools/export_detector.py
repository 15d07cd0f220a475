"""Every export of the detector, and how far each is from the shipped file; JSON on stdout.

    python tools/export_detector.py --frames FRAMES --out OUT [--only fp32 fp16 int8 int8-trt]

FRAMES is a folder that `train_detector.py frames` wrote: its pictures calibrate INT8, others of them are compared. Writes
OUT/NAME.KIND.onnx: fp32; fp16 (stored, computed in fp32: what ships); int8 for ONNX Runtime; int8-trt for TensorRT (symmetric, no
quantised biases). What an export costs in AP and saves in time: `eval_detector.py --also OUT/NAME.int8.onnx`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from detector_peers import letterbox

from vedette.engines.canvas import parse_size
from vedette.engines.export import detector_from_onnx, export_detector
from vedette.engines.load import resolve
from vedette.engines.parity import parity_report
from vedette.engines.quantize import quantize_detector

KINDS = ("fp32", "fp16", "int8", "int8-trt")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="vedette-nano")
    p.add_argument("--frames", type=Path, required=True)
    p.add_argument("--size", default="416x256")
    p.add_argument("--calibrate", type=int, default=60, help="pictures whose ranges become scales")
    p.add_argument("--compare", type=int, default=20, help="other pictures the files are compared on")
    p.add_argument("--only", nargs="*", choices=KINDS, default=list(KINDS))
    p.add_argument("--out", type=Path, required=True)
    a = p.parse_args()
    paths = sorted(a.frames.glob("*.jpg"))
    np.random.default_rng(0).shuffle(paths)  # type: ignore[arg-type]
    chosen = paths[: a.calibrate + a.compare]
    canvases = [letterbox(cv2.imread(str(path)), parse_size(a.size), 0, True)[0] for path in chosen]
    source, files = resolve(a.model), []
    a.out.mkdir(parents=True, exist_ok=True)
    for kind in a.only:
        out = a.out / f"{source.stem}.{kind}.onnx"
        if kind.startswith("int8"):
            target = "tensorrt" if kind == "int8-trt" else "onnxruntime"
            files.append(quantize_detector(source, out, canvases[: a.calibrate], target=target))
        else:
            files.append(export_detector(detector_from_onnx(source), out, half=kind == "fp16"))
    print(json.dumps(parity_report(source, files, canvases[a.calibrate :], torch=True), indent=1))


if __name__ == "__main__":
    main()
