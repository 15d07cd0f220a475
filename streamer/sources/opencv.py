"""Reading pictures with OpenCV's FFmpeg, V4L2 and GStreamer backends, bounded and quiet.

OpenCV takes FFmpeg options only from the environment, at every open; and its messages would print URLs with passwords,
so they are turned off before it is loaded. One thread decodes: processes are the unit of parallelism here.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from vedette.streamer.errors import SourceError, SourceRefused
from vedette.streamer.log import redact
from vedette.streamer.sources.base import EndOfStream, Info, Want

os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_FFMPEG_READ_ATTEMPTS", "1024")  # corrupt packets in a row before a read fails

import cv2

cv2.setNumThreads(1)
cv2.utils.logging.setLogLevel(
    cv2.utils.logging.LOG_LEVEL_SILENT
)  # somebody may have imported cv2 before the environment above was there

U8 = NDArray[np.uint8]

#: FFmpeg's tag of BGR24 pixels, and the codes of an uncompressed stream in an AVI file.
_BGR24 = 0x18524742
_UNCOMPRESSED = (0, cv2.VideoWriter.fourcc(*"DIB "), cv2.VideoWriter.fourcc(*"RGB "), _BGR24)

#: Larger pictures are refused: a header of a few bytes must not reserve gigabytes.
MAX_PIXELS = 8192 * 8192


#: What pictures may come in (FFmpeg's demuxers). Playlists (hls, dash, concat, sdp, ...) are not among them: a file that
#: says it is a video must not lead to other files or hosts.
CONTAINERS = (
    "mov,matroska,avi,mpegts,mpeg,flv,live_flv,asf,ogg,mxf,nut,dv,wtv,rm,nsv,nuv,dhav,gxf,ivf,obu,av1,"
    "h264,hevc,vvc,m4v,mpegvideo,mjpeg,mpjpeg,mjpeg_2000,yuv4mpegpipe,rawvideo,gif,apng,webp_pipe,"
    "image2,image2pipe,jpeg_pipe,png_pipe,bmp_pipe,tiff_pipe,h261,h263,vc1,avs,avs2,avs3,cavsvideo,smjpeg,swf,3dostr"
)
#: And in a playlist that was asked for by name.
PLAYLISTS = "hls,dash,aac,mp3,ac3,eac3,webvtt"


class OpenCvReader:
    """A `Reader` over ``cv2.VideoCapture``.

    live: the end of the stream is an error. bottom_up: whether uncompressed rows are stored last one first, None when
    that is not known; see `_unsafe`. packets: of these codecs, `grab` only reads and `retrieve` gives the packet, u8 [N].
    """

    def __init__(
        self,
        source: str | int,
        want: Want,
        *,
        api: int = cv2.CAP_FFMPEG,
        live: bool,
        options: Mapping[str, str] | None = None,
        bottom_up: bool | None = None,
        packets: Collection[str] = (),
    ) -> None:
        self.name = redact(str(source))
        self._live = live
        self._buffer: U8 | None = None
        self._capture = cv2.VideoCapture()
        parameters: list[int] = []
        if api == cv2.CAP_FFMPEG:
            os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "|".join(
                f"{key};{value}" for key, value in {"threads": "1", **(options or {})}.items()
            )
            parameters = [
                *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(want.open_timeout_s * 1000)),
                *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(want.read_timeout_s * 1000)),
                *(cv2.CAP_PROP_N_THREADS, 1),
            ]
        try:
            opened = self._capture.open(source, api, parameters)
        except cv2.error as error:
            raise SourceError(f"{self.name}: cannot be opened: {error.err or error}") from error
        if not opened:
            raise SourceError(f"{self.name}: cannot be opened as video")
        self._info = self._describe()
        self._raw = api == cv2.CAP_FFMPEG and bottom_up is not False and self._unsafe()
        if self._raw and (bottom_up is None or not self._capture.set(cv2.CAP_PROP_FORMAT, -1)):
            self.close()
            raise SourceRefused(f"{self.name}: uncompressed BGR video is read from AVI files only; convert it")
        self.packets = self._info.codec in packets and bool(self._capture.set(cv2.CAP_PROP_FORMAT, -1))
        if self._info.width * self._info.height > MAX_PIXELS:
            self.close()
            raise SourceRefused(f"{self.name}: pictures of {self._info.width}x{self._info.height} are too large")

    @property
    def info(self) -> Info:
        """What the backend says about the stream."""
        return self._info

    def grab(self) -> float:
        """See `Reader.grab`."""
        try:
            good = self._capture.grab()
        except cv2.error as error:
            raise SourceError(f"{self.name}: decoding failed: {error.err or error}") from error
        if not good:
            if self._live:
                raise SourceError(f"{self.name}: stopped delivering pictures")
            raise EndOfStream(self.name)
        return float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000

    def retrieve(self) -> U8:
        """See `Reader.retrieve`."""
        try:
            good, picture = self._capture.retrieve(None if self._raw else self._buffer)
        except cv2.error as error:
            raise SourceError(f"{self.name}: a picture cannot be converted: {error.err or error}") from error
        if not good or picture is None or picture.size == 0:
            raise SourceError(f"{self.name}: a picture cannot be converted")
        if self._raw:
            return self._rows(picture)
        if picture.shape[0] * picture.shape[1] > MAX_PIXELS:
            raise SourceRefused(f"{self.name}: a picture of {picture.shape[1]}x{picture.shape[0]} is too large")
        if picture.ndim == 2 or picture.shape[2] == 1:
            picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
        elif picture.shape[2] == 4:
            picture = cv2.cvtColor(picture, cv2.COLOR_BGRA2BGR)
        self._buffer = picture
        return picture  # type: ignore[no-any-return]

    def packet(self) -> tuple[bytes, bool]:
        """The packet that was grabbed, and whether it begins with a keyframe. Raises SourceError."""
        good, data = self._capture.retrieve()
        if not good or data is None:
            raise SourceError(f"{self.name}: a packet cannot be read")
        return data.tobytes(), bool(self._capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME))

    def headers(self) -> bytes:
        """What the container says once for all packets (parameter sets), empty when nothing."""
        good, data = self._capture.retrieve(flag=int(self._capture.get(cv2.CAP_PROP_CODEC_EXTRADATA_INDEX)))
        return data.tobytes() if good and data is not None else b""

    def close(self) -> None:
        """Let the source go."""
        self._capture.release()

    def _unsafe(self) -> bool:
        """Whether OpenCV would write outside its memory: uncompressed BGR stored bottom-up.

        OpenCV 4.13, 4.14 and 5.0 corrupt the heap there (found 2026-11 with data/hostile/bgslibrary_demo_48x48.avi; 4.10 to
        4.12 do not); such packets are taken as they are and turned over here, where sizes are checked.
        """
        pixel_format = int(self._capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)) & 0xFFFFFFFF
        return pixel_format == _BGR24 and int(self._capture.get(cv2.CAP_PROP_FOURCC)) in _UNCOMPRESSED

    def _rows(self, packet: U8) -> U8:
        """The picture in a packet of uncompressed BGR rows, last row first, each padded to 4 bytes."""
        height, width = self._info.height, self._info.width
        stride = (width * 3 + 3) // 4 * 4
        if packet.size < height * stride:
            raise SourceError(f"{self.name}: a picture is cut short: needs {height * stride} bytes, has {packet.size}")
        rows = packet.reshape(-1)[: height * stride].reshape(height, stride)[::-1, : width * 3]
        return np.ascontiguousarray(rows).reshape(height, width, 3)

    def _describe(self) -> Info:
        code = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        letters = "".join(chr(code >> shift & 0xFF) for shift in (0, 8, 16, 24)) if code > 0 else ""
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        return Info(
            codec="".join(c for c in letters if c.isprintable()).strip().lower()
            or ("raw" if self._unsafe() else "unknown"),
            width=int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            height=int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            fps=fps if 0 < fps <= 1000 else 0.0,
        )


def network_options(want: Want, protocols: str) -> dict[str, str]:
    """FFmpeg options that bound how long a network stream is looked at and which protocols it may lead to."""
    return {
        "protocol_whitelist": protocols,
        "analyzeduration": str(round(want.analyze_s * 1e6)),
        "probesize": str(max(32_768, round(want.analyze_s * 1e6))),
    }
