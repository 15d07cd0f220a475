"""A video decoder that is told packets: the FFmpeg library that OpenCV has already loaded, called directly.

``cv2.VideoCapture`` decodes every packet it reads or none. Here the caller decides, which is what lets a camera rest where
nothing moves (`vedette.streamer.sources.packets`). Only functions and struct heads are used that FFmpeg 4.4 to 8 share; where no
such library is loaded (another build of OpenCV, another system) `Decoder.open` says so and nothing here is used.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

#: Major versions of libavcodec and libavutil (FFmpeg 4.4 to 8) whose struct heads are as written below.
AVCODEC, AVUTIL = range(58, 63), range(56, 61)
_BGR24, _BICUBIC = 3, 4


class _Frame(ctypes.Structure):
    """The head of AVFrame."""

    _fields_ = (
        ("data", c_void_p * 8), ("linesize", c_int * 8), ("extended_data", c_void_p), ("width", c_int), ("height", c_int),
        ("nb_samples", c_int), ("format", c_int), ("between", c_int * 4), ("pts", c_int64),
    )  # fmt: skip


class _Packet(ctypes.Structure):
    """The head of AVPacket."""

    _fields_ = (("buf", c_void_p), ("pts", c_int64), ("dts", c_int64), ("data", c_void_p), ("size", c_int))


#: name -> (result, arguments) of what is called
_AVCODEC = {
    "avcodec_find_decoder_by_name": (c_void_p, [c_char_p]),
    "avcodec_alloc_context3": (c_void_p, [c_void_p]),
    "avcodec_open2": (c_int, [c_void_p, c_void_p, c_void_p]),
    "avcodec_free_context": (None, [POINTER(c_void_p)]),
    "avcodec_send_packet": (c_int, [c_void_p, c_void_p]),
    "avcodec_receive_frame": (c_int, [c_void_p, c_void_p]),
    "avcodec_flush_buffers": (None, [c_void_p]),
    "av_packet_alloc": (c_void_p, []),
    "av_packet_free": (None, [POINTER(c_void_p)]),
    "av_packet_unref": (None, [c_void_p]),
    "av_new_packet": (c_int, [c_void_p, c_int]),
}
_AVUTIL = {
    "av_frame_alloc": (c_void_p, []),
    "av_frame_free": (None, [POINTER(c_void_p)]),
    "av_opt_set": (c_int, [c_void_p, c_char_p, c_char_p, c_int]),
}
_SWSCALE = {
    "sws_getCachedContext": (c_void_p, [c_void_p, *[c_int] * 7, *[c_void_p] * 3]),
    "sws_scale": (c_int, [c_void_p, c_void_p, c_void_p, c_int, c_int, c_void_p, c_void_p]),
    "sws_freeContext": (None, [c_void_p]),
}


@lru_cache(maxsize=1)
def libraries() -> tuple[Any, Any, Any] | None:
    """libavcodec, libavutil and libswscale as OpenCV loaded them, or None when they are not there or not known."""
    import cv2  # noqa: F401 -- loads them

    try:
        mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line}
    except OSError:
        return None
    found = []
    for stem, functions in (("libavcodec", _AVCODEC), ("libavutil", _AVUTIL), ("libswscale", _SWSCALE)):
        # one of each: with two we could not tell which of them belongs to which
        paths = [path for path in mapped if Path(path).name.startswith((f"{stem}-", f"{stem}."))]
        if len(paths) != 1:
            return None
        library = ctypes.CDLL(paths[0])
        try:
            for name, (result, arguments) in functions.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
        except AttributeError:
            return None
        found.append(library)
    codec, util, scale = found
    known = codec.avcodec_version() >> 16 in AVCODEC and util.avutil_version() >> 16 in AVUTIL
    return (codec, util, scale) if known else None


class Decoder:
    """Packets in, pictures out, one thread. The same pictures as ``cv2.VideoCapture`` gives, to the bit.

    codec: FFmpeg's name. max_pixels: larger pictures are refused before memory is reserved for them.
    """

    def __init__(self, codec: str, max_pixels: int) -> None:
        """Raises LookupError where there is no such decoder."""
        loaded = libraries()
        if loaded is None:
            raise LookupError("no FFmpeg library that is known here is loaded")
        self._codec, self._util, self._scale = loaded
        self._context = self._packet = self._next = self._current = self._scaler = c_void_p()
        kind = self._codec.avcodec_find_decoder_by_name(codec.encode())
        if not kind:
            raise LookupError(f"FFmpeg has no decoder {codec}")
        self._context = c_void_p(self._codec.avcodec_alloc_context3(kind))
        for key, value in (("threads", "1"), ("max_pixels", str(max_pixels))):
            self._util.av_opt_set(self._context, key.encode(), value.encode(), 0)
        self._packet = c_void_p(self._codec.av_packet_alloc())
        self._next, self._current = c_void_p(self._util.av_frame_alloc()), c_void_p(self._util.av_frame_alloc())
        if self._codec.avcodec_open2(self._context, kind, None) < 0:
            self.close()
            raise LookupError(f"FFmpeg cannot open its decoder {codec}")

    def send(self, data: bytes | None, pts: int = 0) -> bool:
        """Give a packet, None at the end; false when the decoder does not understand it. Take what it `receive`s."""
        if data is None:
            return bool(self._codec.avcodec_send_packet(self._context, None) >= 0)
        if self._codec.av_new_packet(self._packet, len(data)) < 0:
            return False
        packet = _Packet.from_address(self._packet.value or 0)
        ctypes.memmove(packet.data, data, len(data))
        packet.pts = packet.dts = pts
        status = self._codec.avcodec_send_packet(self._context, self._packet)
        self._codec.av_packet_unref(self._packet)
        return bool(status >= 0)

    def receive(self) -> int | None:
        """The pts of the next picture, which is now the current one; None when another packet is needed first."""
        if self._codec.avcodec_receive_frame(self._context, self._next) < 0:
            return None
        self._next, self._current = self._current, self._next
        return int(self._frame.pts)

    def flush(self) -> None:
        """Forget every packet: the next one is a keyframe. The current picture stays."""
        self._codec.avcodec_flush_buffers(self._context)

    @property
    def size_hw(self) -> tuple[int, int]:
        """Of the current picture; (0, 0) before the first."""
        return self._frame.height, self._frame.width

    def picture(self, into: U8 | None) -> U8 | None:
        """The current picture u8 [H,W,3] BGR, in ``into`` when it fits. None when it cannot be converted."""
        frame, (height, width) = self._frame, self.size_hw
        if height <= 0 or width <= 0:
            return None
        self._scaler = c_void_p(
            self._scale.sws_getCachedContext(
                self._scaler, width, height, frame.format, width, height, _BGR24, _BICUBIC, None, None, None
            )
        )
        if not self._scaler:
            return None
        if into is None or into.shape != (height, width, 3):
            into = _aligned(height, width)
        planes, strides = (c_void_p * 4)(into.ctypes.data), (c_int * 4)(into.strides[0])
        address = self._current.value or 0
        rows = self._scale.sws_scale(
            self._scaler, address, address + _Frame.linesize.offset, 0, height, byref(planes), byref(strides)
        )
        return into if rows == height else None

    def close(self) -> None:
        """Give everything back; harmless a second time."""
        for free, thing in (
            (self._codec.avcodec_free_context, self._context), (self._codec.av_packet_free, self._packet),
            (self._util.av_frame_free, self._next), (self._util.av_frame_free, self._current),
        ):  # fmt: skip
            if thing:
                free(byref(thing))
        if self._scaler:
            self._scale.sws_freeContext(self._scaler)
        self._context = self._packet = self._next = self._current = self._scaler = c_void_p()

    @property
    def _frame(self) -> _Frame:
        return _Frame.from_address(self._current.value or 0)


def _aligned(height: int, width: int) -> U8:
    """u8 [height,width,3] whose rows have room behind them: vector code writes a few bytes past a row's end."""
    stride = (width * 3 + 63) // 64 * 64 + 64
    return np.lib.stride_tricks.as_strided(np.zeros(height * stride, np.uint8), (height, width, 3), (stride, 3, 1))
