"""``gst:`` followed by a GStreamer pipeline that ends in ``appsink``; needs an OpenCV that was built with GStreamer."""

from __future__ import annotations

from vedette.streamer.errors import ConfigError
from vedette.streamer.sources.base import Kind, Reader, Want


def _problem(_source: str) -> str | None:
    import cv2

    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        return None
    return (
        "this OpenCV was built without GStreamer; install an OpenCV with it (Debian's python3-opencv, or NVIDIA's on "
        "a Jetson), or give the camera's rtsp:// address"
    )


def _open(source: str, want: Want) -> Reader:
    problem = _problem(source)
    if problem:
        raise ConfigError(f"gst: {problem}")
    import cv2

    from vedette.streamer.sources.opencv import OpenCvReader

    return OpenCvReader(source.removeprefix("gst:").strip(), want, api=cv2.CAP_GSTREAMER, live=True)


KIND = Kind(live=True, takes=lambda source: source.startswith("gst:"), open=_open, problem=_problem)
