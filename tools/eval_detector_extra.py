"""The other parts of eval_detector: re-identification, latency, false detections, contact sheet."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
from detector_metrics import Matched, reidentification
from detector_peers import session

from vedette.engines.canvas import SIZES, parse_size
from vedette.engines.load import resolve
from vedette.engines.runtimes.onnxruntime import OrtRuntime
from vedette.kernels.nms import iou_matrix

#: the true rate of vtest.avi (its header says 10)
VTEST_HZ = 7.0


def stripe_histogram(crop: np.ndarray) -> np.ndarray:
    """Four stripes of a hue-saturation histogram, square-rooted: the model-free baseline."""
    hsv = cv2.cvtColor(cv2.resize(crop, (64, 128)), cv2.COLOR_BGR2HSV)
    parts = [cv2.calcHist([s], [0, 1], None, [12, 6], [0, 180, 0, 256]).ravel() for s in np.array_split(hsv, 4)]
    return np.sqrt(np.concatenate(parts) / 2048)


def crop_embedders(models: Path | None) -> dict:
    """Name -> crop BGR -> vector, of the networks that need a second pass over the pixels."""
    out = {"hsv stripes": stripe_histogram}
    if models is None:
        return out
    retail = session(models / "person-reidentification-retail-0248.onnx", 2)
    osnet = session(models / "osnet_x0_25_msmt17.onnx", 2)
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)

    def run_retail(crop: np.ndarray) -> np.ndarray:
        x = cv2.resize(crop, (128, 256)).astype(np.float32)[None]
        return retail.run(None, {retail.get_inputs()[0].name: x})[0][0]

    def run_osnet(crop: np.ndarray) -> np.ndarray:
        x = ((cv2.resize(crop, (128, 256))[..., ::-1] / 255 - mean) / std).astype(np.float32)
        return osnet.run(None, {"images": x.transpose(2, 0, 1)[None]})[0][0]

    return {**out, "retail-0248 (second network)": run_retail, "osnet-x0.25 msmt17 (second network)": run_osnet}


def reid_report(ours, clip: Path, truth: dict[int, np.ndarray], models: Path | None) -> dict:
    """AUC and rank-1 on ground-truth people of vtest, once a second; every method sees the same detected boxes."""
    embedders = crop_embedders(models)
    who, when, clear, vectors = [], [], [], {name: [] for name in ("vedette-nano", *embedders)}
    capture, k = cv2.VideoCapture(str(clip)), 0
    while True:
        ok, image = capture.read()
        if not ok:
            break
        k += 1
        rows = truth.get(k)
        if k % round(VTEST_HZ) or rows is None:
            continue
        found = ours.detections(image)
        found = found[(found.label == 0) & (found.score > 0.25)]
        h, w = image.shape[:2]
        boxes = found.xyxy * np.array([w, h, w, h], np.float32)
        overlap, crowd = iou_matrix(boxes, rows[:, 1:5]), iou_matrix(rows[:, 1:5], rows[:, 1:5])
        for j in range(len(rows)):
            i = int(overlap[:, j].argmax()) if len(boxes) else 0
            if not len(boxes) or overlap[i, j] < 0.5 or overlap[i].argmax() != j:
                continue
            x1, y1, x2, y2 = boxes[i].round().astype(int)
            crop = image[max(y1, 0) : y2, max(x1, 0) : x2]
            if crop.shape[0] < 16 or crop.shape[1] < 6:
                continue
            who.append(int(rows[j, 0]))
            when.append(k / VTEST_HZ)
            clear.append(np.delete(crowd[j], j).max(initial=0.0) < 0.02)
            vectors["vedette-nano"].append(found.embedding[i])
            for name, embed in embedders.items():
                v = embed(crop)
                vectors[name].append(v / (np.linalg.norm(v) + 1e-9))
    ids, times, free = np.array(who), np.array(when), np.array(clear)
    out = {}
    for name, v in vectors.items():
        e = np.stack(v)
        out[name] = {"all": reidentification(e, ids, times), "clear": reidentification(e[free], ids[free], times[free])}
    return out


def latencies(model: str, also: list[str], models: Path | None, seconds: float = 2.0) -> dict:
    """Median and best ms a picture: name -> {threads, batch} -> {p50, best}. Interleaved, so that noise hits all alike."""
    rng = np.random.default_rng(0)
    cases = {}
    for threads in (1, 2):
        for path in [model, *also]:
            for size in SIZES.values():
                h, w = parse_size(size)
                for b in (1, 8):
                    runtime = OrtRuntime(resolve(path), threads=threads)
                    x = {"pixels": rng.integers(0, 255, (b, h, w, 3), dtype=np.uint8)}
                    name = f"{Path(path).stem} {size}"
                    cases[name, threads, b] = lambda r=runtime, x=x: r.run(x)
        for file, hw in (
            ("yolox_nano_416", (416, 416)),
            ("nanodet_g_coco", (256, 416)),
            ("nanodet_m_416", (416, 416)),
            ("light_person_192", (192, 192)),
        ):
            if models is None:
                continue
            s = session(models / f"{file}.onnx", threads)
            x = {s.get_inputs()[0].name: rng.standard_normal((1, 3, *hw)).astype(np.float32)}
            cases[f"{file} {hw[1]}x{hw[0]}", threads, 1] = lambda s=s, x=x: s.run(None, x)
    times: dict = {k: [] for k in cases}
    for run in cases.values():
        run()
    rounds = 0
    began = time.perf_counter()
    while rounds < 5 or time.perf_counter() - began < seconds * len(cases) / 4:
        rounds += 1
        for key, run in cases.items():
            t = time.perf_counter()
            run()
            times[key].append((time.perf_counter() - t) * 1e3 / key[2])
    out: dict = {"rounds": rounds}
    for (name, threads, b), ms in times.items():
        row = {"p50": round(float(np.median(ms)), 2), "best": round(min(ms), 2)}
        out.setdefault(name, {})[f"threads {threads}, batch {b}"] = row
    return out


def contact_sheet(detect, pictures: list, matched: list[Matched], path: Path, columns: int = 6) -> None:
    """The best and worst pictures (F1 of people at score 0.35), truth in green, detections in orange, misses in red."""
    marks = []
    for m in matched:
        hits, said = int((m.found_at >= 0.35).sum()), int((m.score >= 0.35).sum())
        marks.append(2 * hits / max(1, said + len(m.found_at)))
    order = np.argsort(marks, kind="stable")
    tiles = []
    for i in [*order[-2 * columns :][::-1], *order[: 4 * columns]]:
        image, rows = pictures[i]
        tile = image.copy()
        boxes, scores, labels = detect(image)
        for j, row in enumerate(rows[rows[:, 0] == 0]):
            colour = (0, 200, 0) if matched[i].found_at[j] >= 0.35 else (0, 0, 255)
            cv2.rectangle(tile, tuple(row[1:3].astype(int).tolist()), tuple(row[3:5].astype(int).tolist()), colour, 1)
        for b, s, label in zip(boxes, scores, labels, strict=True):
            if s >= 0.35 and label == 0:
                cv2.rectangle(
                    tile, tuple(b[:2].astype(int).tolist()), tuple(b[2:].astype(int).tolist()), (0, 160, 255), 2
                )
        tile = cv2.resize(tile, (256, 192), interpolation=cv2.INTER_AREA)
        cv2.putText(tile, f"F1 {marks[i]:.2f}", (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
        tiles.append(tile)
    rows_of = [np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)]
    cv2.imwrite(str(path), np.concatenate([r for r in rows_of if r.shape[1] == 256 * columns]))
