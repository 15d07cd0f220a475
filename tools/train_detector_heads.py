"""Train the scene head of vedette-nano; the trunk stays frozen. (Appearance: tools/train_detector_embedding.py.)

    collect  worn views of clips and pictures -> what the head reads of the trunk, kept on disk
    train    fit the head on it (a minute) and export the ONNX file

Scene tokens must say which labels stand in their cell, and give back the features they were made from.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from detector_data import read_yolo, wear
from detector_tracks import Scene, link_clip, picture_scene
from torch import Tensor, nn
from train_detector import load_net

from vedette.engines.export import export_detector
from vedette.engines.load import load
from vedette.engines.models.vedette_nano import SCENE_DIM, SCENE_GRID, VedetteNano, read_points
from vedette.kernels.nms import iou_matrix

H, W = 256, 416


def recolour_scene(image: np.ndarray, hue: float, r: np.random.Generator) -> np.ndarray:
    """The scene with all hues turned by ``hue``, then white balance, saturation and exposure of one view."""
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + hue + r.uniform(-3, 3)) % 180
    hsv[..., 1] *= r.uniform(0.7, 1.25)
    bgr = cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2BGR).astype(np.float32)
    bgr *= r.uniform(0.93, 1.07, 3).astype(np.float32) * r.uniform(0.75, 1.25)
    return bgr.clip(0, 255).astype(np.uint8)


def view(image: np.ndarray, rows: np.ndarray, hue: float, r: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One worn canvas [H,W,3] of the scene and the rows that are still whole in it, in canvas pixels."""
    h, w = image.shape[:2]
    flip = r.random() < 0.5
    if flip:
        image = image[:, ::-1]
        rows = rows.copy()
        rows[:, [2, 4]] = w - rows[:, [4, 2]]
    fit = min(H / h, W / w)
    s = fit * np.exp(r.uniform(np.log(0.6), np.log(2.2)))
    if len(rows):  # half of the time, people as small as those of a far camera
        tall = np.median(rows[:, 5] - rows[:, 3])
        s = max(0.12, min(s, r.uniform(24, 140) / max(tall, 1))) if r.random() < 0.6 else s
        k = r.integers(len(rows))
        cx, cy = (rows[k, 2] + rows[k, 4]) / 2, (rows[k, 3] + rows[k, 5]) / 2
    else:
        cx, cy = w / 2, h / 2
    tx, ty = W * r.uniform(0.3, 0.7) - cx * s, H * r.uniform(0.3, 0.7) - cy * s
    small = cv2.resize(image, None, fx=s, fy=s, interpolation=cv2.INTER_AREA if s < 1 else cv2.INTER_LINEAR)
    canvas = cv2.warpAffine(small, np.array([[1, 0, tx], [0, 1, ty]], np.float32), (W, H))
    moved = rows.copy()
    moved[:, 2:] = rows[:, 2:] * s + np.array([tx, ty, tx, ty], np.float32)
    inside = (moved[:, 2] > -2) & (moved[:, 3] > -2) & (moved[:, 4] < W + 2) & (moved[:, 5] < H + 2)
    inside &= moved[:, 5] - moved[:, 3] > 12
    return wear(recolour_scene(canvas, hue, r), r), moved[inside]


@torch.no_grad()
def read_cells(net: VedetteNano, canvas: np.ndarray) -> np.ndarray:
    """What the scene head reads of a view: [49,256]."""
    raw = net.raw(torch.from_numpy(canvas).permute(2, 0, 1)[None].float())
    x = torch.cat([F.avg_pool2d(raw.levels[1], 2), raw.levels[2]], 1)
    grid = net.scene.grid
    cells = read_points(x, grid[0].expand(1, 1, -1), grid[1].expand(1, 1, -1))
    return cells.view(SCENE_GRID, 2, SCENE_GRID, 2, -1).mean((1, 3)).flatten(0, 1).numpy()


def gather_scenes(a: argparse.Namespace, net: VedetteNano) -> list[Scene]:
    """Pseudo-tracked clips and labelled pictures."""
    export_detector(net, a.out / "trunk.onnx")
    engine = load(str(a.out / "trunk.onnx"), size="640x384", threads=1)
    scenes = [link_clip(engine, c, a.hz) for c in a.clips if not any(x in c.name for x in a.exclude)]
    for folder in a.images:
        for path in sorted((folder / "images").glob("*.jpg")):
            hw = cv2.imread(str(path)).shape[:2]
            rows = read_yolo(folder / "labels" / f"{path.stem}.txt", hw)
            rows = rows[rows[:, 4] - rows[:, 2] > 30]
            crowd = iou_matrix(rows[:, 1:], rows[:, 1:]) - np.eye(len(rows), dtype=np.float32)
            if len(rows):
                scenes.append(picture_scene(path, rows[crowd.max(1, initial=0) < 0.3]))
    return [s for s in scenes if sum(len(r) for r in s.rows)]


def cmd_collect(a: argparse.Namespace) -> None:
    torch.manual_seed(0)
    a.out.mkdir(parents=True, exist_ok=True)
    net, r = load_net(a.net, "cpu"), np.random.default_rng(a.seed)
    scenes = gather_scenes(a, net)
    for s in scenes[:8]:
        print(
            s.name,
            "frames",
            len(s.frames),
            "tracks",
            len(np.unique(np.concatenate([x[:, 0] for x in s.rows]))),
            flush=True,
        )
    people = [sum(int((x[:, 1] == 0).sum()) for x in s.rows) for s in scenes]
    odds = np.array([np.sqrt(1 + 3 * p + sum(len(x) for x in s.rows)) for p, s in zip(people, scenes, strict=True)])
    odds /= odds.sum()
    store: dict[str, list] = {"cells": [], "occupied": []}
    began = time.perf_counter()
    for episode in range(a.episodes):
        scene = scenes[int(r.choice(len(scenes), p=odds))]
        n = int(r.choice([n for n, x in enumerate(scene.rows) if len(x)]))
        hue = r.uniform(0, 180) if r.random() < 0.6 else 0.0
        canvas, rows = view(cv2.imdecode(scene.frames[n], 1), scene.rows[n], hue, r)
        store["cells"].append(read_cells(net, canvas).astype(np.float16))
        store["occupied"].append(occupancy(rows))
        if episode % 100 == 99:
            print(f"{episode + 1} episodes, {time.perf_counter() - began:.0f} s", flush=True)
    np.savez(a.out / "heads.npz", **{k: np.stack(v) for k, v in store.items()})
    torch.save(net.state_dict(), a.out / "net.pt")


def occupancy(rows: np.ndarray) -> np.ndarray:
    """Which labels [49,8] stand in which cell: the cell holds the box's centre, or is covered by it."""
    out = np.zeros((SCENE_GRID, SCENE_GRID, 8), np.float32)
    for row in rows:
        x1, y1, x2, y2 = row[2:] / [W, H, W, H] * SCENE_GRID
        i, j = int(np.clip((y1 + y2) / 2, 0, 6.9)), int(np.clip((x1 + x2) / 2, 0, 6.9))
        out[i, j, int(row[1])] = 1
        out[int(np.ceil(max(y1, 0))) : int(max(y2, 0)), int(np.ceil(max(x1, 0))) : int(max(x2, 0)), int(row[1])] = 1
    return out.reshape(-1, 8)


def cmd_train(a: argparse.Namespace) -> None:
    torch.manual_seed(0)
    z = np.load(a.out / "heads.npz")
    data = {k: torch.from_numpy(z[k].astype(np.float32)) for k in ("cells", "occupied")}
    net = load_net(a.net or a.out / "net.pt", "cpu")
    report = {"scene": fit_scene(net, data, a.steps)}
    torch.save(net.state_dict(), a.out / "trained.pt")
    if a.onnx:
        export_detector(net, a.onnx, metadata={"vedette.training": a.note} if a.note else None)
    print(json.dumps(report))


def fit_scene(net: VedetteNano, data: dict[str, Tensor], steps: int) -> dict[str, float]:
    cells, occupied = data["cells"], data["occupied"]
    mean, scale = cells.mean((0, 1)), cells.std((0, 1)) + 1e-3
    head = net.scene
    readout, back = nn.Linear(SCENE_DIM, 8), nn.Linear(SCENE_DIM, cells.shape[-1])
    params = [*head.mix.parameters(), *head.norm.parameters(), *readout.parameters(), *back.parameters()]
    optimizer = torch.optim.AdamW(params, lr=2e-3)
    held = torch.arange(len(cells)) % 8 == 7
    train = torch.where(~held)[0]

    def tokens(x: Tensor) -> Tensor:
        return head.norm(F.linear(x, head.mix.weight[:, :, 0, 0], head.mix.bias))

    def losses(rows: Tensor) -> tuple[Tensor, Tensor]:
        t = tokens(cells[rows])
        seen = F.binary_cross_entropy_with_logits(readout(t), occupied[rows], pos_weight=torch.full((8,), 5.0))
        return seen, F.mse_loss(back(t), (cells[rows] - mean) / scale)

    for _ in range(steps):
        seen, rebuilt = losses(train[torch.randint(len(train), (64,))])
        loss = seen + 0.5 * rebuilt
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        rows = torch.where(held)[0]
        _, rebuilt = losses(rows)
        score, truth = readout(tokens(cells[rows]))[..., 0].flatten(), occupied[rows][..., 0].flatten() > 0
        ranks = torch.argsort(torch.argsort(score))[truth].double()
        n, m = int(truth.sum()), int((~truth).sum())
        auc = float((ranks.sum() - n * (n - 1) / 2) / (n * m))
        return {"person_in_cell_auc": auc, "features_explained": float(1 - rebuilt)}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="command", required=True)
    s = sub.add_parser("collect")
    s.add_argument("--net", type=Path, required=True)
    s.add_argument("--clips", type=Path, nargs="+", required=True)
    s.add_argument("--exclude", nargs="*", default=["vtest", "fight"])
    s.add_argument("--images", type=Path, nargs="*", default=[])
    s.add_argument("--episodes", type=int, default=1500)
    s.add_argument("--hz", type=float, default=5.0)
    s.add_argument("--seed", type=int, default=0)
    s.add_argument("--out", type=Path, required=True)
    s = sub.add_parser("train")
    s.add_argument("--out", type=Path, required=True)
    s.add_argument("--steps", type=int, default=1500)
    s.add_argument("--net", type=Path, help="the trunk that was collected from; default: the one collect kept")
    s.add_argument("--onnx", type=Path)
    s.add_argument("--note", default="")
    a = p.parse_args()
    torch.set_num_threads(1)
    {"collect": cmd_collect, "train": cmd_train}[a.command](a)


if __name__ == "__main__":
    main()
