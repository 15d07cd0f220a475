"""The loops that users write around a detector today; run as a script by an interpreter of their own, without vedette.

One thread a camera decodes a clip in real time with OpenCV and keeps the newest picture; workers letterbox it, run the
ONNX graph, and sort the boxes out: by OpenCV's NMS (``opencv``), by supervision with a ByteTrack of ``trackers`` a camera
(``supervision``), or inside Roboflow's ``InferencePipeline`` (``inference``), which brings its own threads. JSON job on
stdin, JSON figures on stdout. Job ``encode`` makes the H.264 clip with PyAV.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

HEIGHT, WIDTH = 256, 416
SCORE, OVERLAP = 0.25, 0.55

Found = tuple[Any, Any, Any]  # boxes xyxy f32 [N,4] in pixels, scores [N], labels [N]


class Camera:
    """One thread: decode in real time, keep the newest."""

    def __init__(self, clip: str, fps: float, ready: threading.Condition) -> None:
        self.clip, self.fps, self.ready = clip, fps, ready
        self.slot: tuple[Any, float] | None = None
        self.stop = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        import cv2

        capture = cv2.VideoCapture(self.clip, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        due = time.monotonic()
        while not self.stop:
            good, picture = capture.read()
            if not good:
                capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
                continue
            due = max(due + 1 / self.fps, time.monotonic() - 1.0)
            time.sleep(max(0.0, due - time.monotonic()))
            with self.ready:
                self.slot = picture, time.monotonic()
                self.ready.notify()


class Meter:
    """Results since `begin`, by camera. add: may be called by many threads."""

    def __init__(self, cameras: int) -> None:
        self.lock = threading.Lock()
        self.cameras = cameras
        self.begin()

    def begin(self) -> None:
        self.count, self.boxes = [0] * self.cameras, 0
        self.late_ms: list[float] = []
        self.began, self.cpu_s = time.monotonic(), sum(os.times()[:2])

    def add(self, camera: int, decoded: float, boxes: int) -> None:
        with self.lock:
            self.count[camera] += 1
            self.late_ms.append((time.monotonic() - decoded) * 1e3)
            self.boxes += boxes

    def result(self, fps: float) -> dict[str, Any]:
        wall_s = time.monotonic() - self.began
        cpu_s = sum(os.times()[:2]) - self.cpu_s
        due = fps * wall_s
        p50, p95, p99 = np.percentile(self.late_ms, [50, 95, 99]).tolist() if self.late_ms else [0.0] * 3
        return {
            "cameras": self.cameras,
            "fps_total": round(sum(self.count) / wall_s, 2),
            "fps_least": round(min(self.count) / wall_s, 2),
            "lost_most": round(max(0.0, (due - 1 - min(self.count)) / due), 4),
            "latency_ms": {"p50": round(p50, 1), "p95": round(p95, 1), "p99": round(p99, 1)},
            "cpu_s_per_camera_hour": round(cpu_s / wall_s * 3600 / self.cameras, 1),
            "boxes_per_picture": round(self.boxes / max(1, sum(self.count)), 2),
            "rss_mb": round(_rss_mb(), 1),
        }


class Net:
    """The same graph, on the same canvas. threads: of one call."""

    def __init__(self, model: str, threads: int) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, pictures: list[Any]) -> list[Found]:
        import cv2

        canvas = np.zeros((len(pictures), HEIGHT, WIDTH, 3), np.uint8)
        scales = []
        for i, picture in enumerate(pictures):
            scale = min(WIDTH / picture.shape[1], HEIGHT / picture.shape[0])
            size = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
            canvas[i, : size[1], : size[0]] = cv2.resize(picture, size)
            scales.append(scale)
        boxes, scores, labels = self.session.run(["boxes", "scores", "labels"], {"pixels": canvas})
        pixels = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], np.float32)
        found = []
        for i, scale in enumerate(scales):
            good = scores[i] >= SCORE
            found.append((boxes[i][good] * pixels / scale, scores[i][good], labels[i][good]))
        return found


def sorted_out(loop: str, cameras: int, fps: float) -> Callable[[int, Found], int]:
    """What happens to the boxes of a picture of a camera; the number of results."""
    if loop == "supervision":
        import supervision as sv
        from trackers import ByteTrackTracker

        trackers = [ByteTrackTracker(frame_rate=fps) for _ in range(cameras)]

        def track(camera: int, found: Found) -> int:
            boxes, scores, labels = found
            detections = sv.Detections(xyxy=boxes, confidence=scores, class_id=labels.astype(int)).with_nms(OVERLAP)
            return len(trackers[camera].update(detections))

        return track
    import cv2

    def suppress(_camera: int, found: Found) -> int:
        boxes, scores, labels = found
        sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        return len(cv2.dnn.NMSBoxesBatched(sides.tolist(), scores.tolist(), labels.tolist(), SCORE, OVERLAP))

    return suppress


def run_threads(job: dict[str, Any]) -> dict[str, Any]:
    """``workers`` threads take up to ``batch`` waiting pictures in turn, each with a session of ``threads`` threads."""
    import cv2

    cv2.setNumThreads(1)
    clips, fps, batch = job["clips"], job["fps"], job["batch"]
    ready = threading.Condition()
    cameras = [Camera(clip, fps, ready) for clip in clips]
    meter, finish = Meter(len(cameras)), sorted_out(job["loop"], len(cameras), fps)
    nets = [Net(job["model"], job["threads"]) for _ in range(job["workers"])]
    for net in nets:
        net([np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * batch)
    busy, turn, stop = set[int](), [0], [False]

    def take() -> list[tuple[int, Any, float]]:
        with ready:
            while not stop[0]:
                order = [(turn[0] + i) % len(cameras) for i in range(len(cameras))]
                chosen = [i for i in order if cameras[i].slot is not None and i not in busy][:batch]
                if chosen:
                    turn[0] = chosen[-1] + 1
                    busy.update(chosen)
                    taken = []
                    for i in chosen:
                        slot, cameras[i].slot = cameras[i].slot, None
                        assert slot is not None
                        taken.append((i, *slot))
                    return taken
                ready.wait(0.1)
        return []

    def work(net: Net) -> None:
        while not stop[0]:
            taken = take()
            for (i, _, decoded), found in zip(taken, net([p for _, p, _ in taken]) if taken else (), strict=True):
                meter.add(i, decoded, finish(i, found))
            with ready:
                busy.difference_update(i for i, _, _ in taken)
                ready.notify()

    threads = [threading.Thread(target=work, args=(net,), daemon=True) for net in nets]
    for thread in threads:
        thread.start()
    result = _measure(meter, job)
    stop[0] = True
    for camera in cameras:
        camera.stop = True
    for thread in [*threads, *(camera.thread for camera in cameras)]:
        thread.join(5)
    return result


def run_inference(job: dict[str, Any]) -> dict[str, Any]:
    """Roboflow's pipeline with the same graph as custom logic, as its documentation shows it."""
    import cv2
    from inference.core.interfaces.camera.video_source import BufferConsumptionStrategy, BufferFillingStrategy
    from inference.core.interfaces.stream.inference_pipeline import InferencePipeline

    cv2.setNumThreads(1)
    net, meter = Net(job["model"], job["threads"]), Meter(len(job["clips"]))
    finish = sorted_out("opencv", len(job["clips"]), job["fps"])

    def infer(frames: list[Any]) -> list[Any]:
        for frame, found in zip(frames, net([frame.image for frame in frames]), strict=True):
            decoded = time.monotonic() - (time.time() - frame.frame_timestamp.timestamp())
            meter.add(frame.source_id or 0, decoded, finish(0, found))
        return [{} for _ in frames]

    pipeline = InferencePipeline.init_with_custom_logic(
        video_reference=job["clips"], on_video_frame=infer, on_prediction=lambda *_: None,
        source_buffer_filling_strategy=BufferFillingStrategy.DROP_OLDEST,
        source_buffer_consumption_strategy=BufferConsumptionStrategy.EAGER,
    )  # fmt: skip
    pipeline.start(use_main_thread=False)
    result = _measure(meter, job)
    pipeline.terminate()
    return result


def _measure(meter: Meter, job: dict[str, Any]) -> dict[str, Any]:
    time.sleep(job["warm"])
    with meter.lock:
        meter.begin()
    time.sleep(job["seconds"])
    with meter.lock:
        return meter.result(job["fps"])


def run_startup(job: dict[str, Any]) -> dict[str, Any]:
    """When the first picture of a clip was decoded, and the first result came out; seconds of the monotonic clock."""
    import cv2

    net, finish = Net(job["model"], job["threads"]), sorted_out(job["sort"], 1, job["fps"])
    capture, decoded_s = cv2.VideoCapture(job["clip"], cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1]), None
    while True:
        good, picture = capture.read()
        if not good:
            raise ValueError("nothing was detected in the whole clip")
        decoded_s = time.monotonic() if decoded_s is None else decoded_s
        if finish(0, net([picture])[0]):
            return {"decoded_s": decoded_s, "detected_s": time.monotonic()}


def encode(job: dict[str, Any]) -> dict[str, Any]:
    """Pictures of ``source`` as H.264 of ``size``, or with ``still`` its first one under a sensor's fresh noise."""
    import av

    rng, first, count, packets = np.random.default_rng(1), None, 0, []
    wide, high = job["size"]
    with av.open(job["source"]) as source, av.open(job["target"], "w") as target:
        stream = target.add_stream("libx264", rate=round(job["fps"]))
        stream.options = {"preset": "veryfast", "tune": "zerolatency", "crf": "23", "g": str(job["gop"])}
        stream.width, stream.height, stream.pix_fmt = wide, high, "yuv420p"
        for frame in source.decode(video=0):
            picture = frame.reformat(wide, high, "bgr24").to_ndarray()
            while True:
                if job["still"]:
                    first = picture.astype(np.float32) if first is None else first
                    picture = np.clip(first + rng.normal(0, job["noise"], first.shape), 0, 255).astype(np.uint8)
                packed = av.VideoFrame.from_ndarray(picture, "bgr24").reformat(format="yuv420p")
                packed.pts, count = count, count + 1
                packets += stream.encode(packed)
                if not job["still"] or count >= job["count"]:
                    break
            if count >= job["count"]:
                break
        packets += stream.encode()
        kept = [(bytes(packet), packet.pts, packet.dts, packet.is_keyframe, packet.time_base) for packet in packets]
        for turn in range(job["turns"]):  # each turn begins with a keyframe that nothing before it is needed for
            for data, pts, dts, is_keyframe, base in kept:
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = stream, base, is_keyframe
                shift = round(turn * count / job["fps"] / base)
                packet.pts, packet.dts = pts + shift, dts + shift
                target.mux(packet)
    return {"codec": "h264", "pictures": count}


def versions() -> dict[str, str]:
    """What is installed here."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for name in (
        "onnxruntime",
        "opencv-python-headless",
        "opencv-python",
        "supervision",
        "trackers",
        "inference",
        "av",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _rss_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Read the job, do it, answer."""
    job = json.load(sys.stdin)
    tasks: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "encode": encode, "inference": run_inference, "startup": run_startup,
    }  # fmt: skip
    answer = versions() if job["loop"] == "versions" else tasks.get(job["loop"], run_threads)(job)
    print("\n" + json.dumps(answer), flush=True)
    os._exit(0)  # threads inside C must not keep us


if __name__ == "__main__":
    main()
