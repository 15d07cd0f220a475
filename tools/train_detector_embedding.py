"""Fit the appearance embedding of vedette-nano; everything else stays as it is.

    crops   people of clips (pseudo-tracks) and of labelled pictures -> OUT/crops
    sheets  canvases of these people in many clothes -> what the embedding reads of them, OUT/views.npz
    fit     the linear map (regularised discriminant analysis) -> the ONNX file that ships

Within a person: views of one episode on two sheets. Between people: those of one episode, who share scene and light.
The fit maximises the second against the first (Fisher 1936; shrinkage as Ledoit and Wolf 2004 argue for). It is closed
form: a minute of one core, the same result every time. Deeper features separated
people worse, and one MLP trained with InfoNCE on top no better, from so few people.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from detector_data import read_yolo
from detector_sheets import H, Sheets, W, clip_crops, load_crops, picture_crops, save_crops
from train_detector import load_net

from vedette.engines.export import export_detector
from vedette.engines.load import load
from vedette.engines.models.vedette_nano import EMBED_ROWS, EMBEDDING_DIM, STEM, VedetteNano


def cmd_crops(a: argparse.Namespace) -> None:
    engine = load(a.detector, size="640x384", threads=1)
    crops = []
    for clip in (c for c in a.clips if not any(x in str(c) for x in a.exclude)):
        crops += clip_crops(engine, clip, a.hz)
        print(f"{clip.name}: {len(crops)} views so far", flush=True)
    for folder in a.images:
        for path in sorted((folder / "images").rglob("*.jpg")):
            image = cv2.imread(str(path))
            rows = read_yolo(folder / "labels" / f"{path.stem}.txt", image.shape[:2])
            crops += picture_crops(image, rows[rows[:, 0] == 0][:, 1:], folder.name, len(crops))
    save_crops(crops, a.out / "crops")
    print(json.dumps({"views": len(crops), "people": len({(c.scene, c.track) for c in crops})}))


@torch.no_grad()
def read_views(net: VedetteNano, canvas: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """What the embedding reads of boxes [N,4] px in a canvas: [N,480]."""
    bgr = torch.from_numpy(canvas).permute(2, 0, 1)[None].float()
    low = net.low_maps(bgr, net.stem((bgr - net.mean) * net.gain))
    size = torch.tensor([W, H, W, H], dtype=torch.float32)
    return net.embed.features(low, (torch.from_numpy(boxes)[None] / size).clamp(0, 1))[0].numpy()


def cmd_sheets(a: argparse.Namespace) -> None:
    torch.manual_seed(0)
    net, sheets = load_net(a.net, "cpu").eval(), Sheets(load_crops(a.out / "crops"), np.random.default_rng(a.seed))
    views, key, began = [], [], time.perf_counter()
    for episode in range(a.episodes):
        height, people = sheets.people()
        for side in (0, 1):
            canvas, rows = sheets.canvas(height, people)
            if len(rows):
                views.append(read_views(net, canvas, rows[:, 1:]).astype(np.float16))
                key += [[episode, int(i), side] for i in rows[:, 0]]
        if episode % 50 == 49:
            print(f"{episode + 1} episodes, {len(key)} views, {time.perf_counter() - began:.0f} s", flush=True)
            np.savez(a.out / "views.npz", views=np.concatenate(views), key=np.array(key))


def means(x: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of every row's group [N,F], and how many rows the group has [N]."""
    _, index = np.unique(group, return_inverse=True)
    count = np.bincount(index)
    total = np.zeros((len(count), x.shape[1]), np.float32)
    np.add.at(total, index, x)
    return (total / count[:, None])[index], count[index]


def discriminant(x: np.ndarray, key: np.ndarray, shrink: float) -> tuple[np.ndarray, np.ndarray]:
    """Matrix [F,63] and offset [63]: x @ matrix - offset is centred, with unit spread within a person."""
    mean, spread = x.mean(0), x.std(0) + 1e-3
    block = np.where(np.arange(x.shape[1]) < EMBED_ROWS * STEM, EMBED_ROWS * STEM, x.shape[1] - EMBED_ROWS * STEM)
    unit = 1 / (spread * np.sqrt(block))  # both kinds of features weigh the same before the fit
    z = (x - mean) * unit
    own, seen = means(z, key[:, 0] * 1000 + key[:, 1])
    around, _ = means(z, key[:, 0])
    within = ((z - own)[seen > 1]).astype(np.float64)
    between = (z - around).astype(np.float64)
    inner, outer = 2 * within.T @ within / len(within), between.T @ between / len(between)
    inner += shrink * np.trace(inner) / len(inner) * np.eye(len(inner))
    whiten = np.linalg.inv(np.linalg.cholesky(inner)).T
    _, axes = np.linalg.eigh(whiten.T @ outer @ whiten)
    matrix = unit[:, None] * (whiten @ axes[:, :-EMBEDDING_DIM:-1])
    return matrix, mean @ matrix


def cmd_fit(a: argparse.Namespace) -> None:
    z = np.load(a.out / "views.npz")
    matrix, offset = discriminant(z["views"].astype(np.float32), z["key"].astype(np.int64), a.shrink)
    net = load_net(a.net, "cpu")
    with torch.no_grad():
        net.embed.project.weight.copy_(torch.from_numpy(matrix.T.copy()))
        net.embed.project.bias.copy_(torch.from_numpy(-offset))
    torch.save(net.state_dict(), a.out / "fitted.pt")
    if a.onnx:
        export_detector(net, a.onnx, metadata={"vedette.training": a.note} if a.note else None)
    print(json.dumps({"views": len(z["key"]), "weight_max": float(np.abs(matrix).max())}))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="command", required=True)
    s = sub.add_parser("crops")
    s.add_argument("--detector", default="vedette-nano", help="name or ONNX file that finds the people")
    s.add_argument("--clips", type=Path, nargs="+", required=True)
    s.add_argument("--exclude", nargs="*", default=["vtest", "fight"], help="parts of clip paths never trained on")
    s.add_argument("--images", type=Path, nargs="*", default=[], help="folders with images/ and YOLO labels/")
    s.add_argument("--hz", type=float, default=4.0)
    s.add_argument("--out", type=Path, required=True)
    s = sub.add_parser("sheets")
    s.add_argument("--net", type=Path, required=True)
    s.add_argument("--episodes", type=int, default=250, help="300 to 500 were no better")
    s.add_argument("--seed", type=int, default=1)
    s.add_argument("--out", type=Path, required=True)
    s = sub.add_parser("fit")
    s.add_argument("--net", type=Path, required=True)
    s.add_argument("--shrink", type=float, default=0.05, help="raise it for fewer people: closer to plain features")
    s.add_argument("--onnx", type=Path)
    s.add_argument("--note", default="")
    s.add_argument("--out", type=Path, required=True)
    a = p.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    {"crops": cmd_crops, "sheets": cmd_sheets, "fit": cmd_fit}[a.command](a)


if __name__ == "__main__":
    main()
