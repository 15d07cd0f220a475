"""A reader that decodes as little as is safe where nothing moves: keyframes, and everything as soon as a packet stirs.

While a scene stands still an encoder has little to say between keyframes, and always about as much. So while it rests
the reader keeps packets without decoding them and looks at their sizes; keyframes are decoded as they come, unless the next
one comes soon enough. A packet larger than the usual ones decodes all that was kept at once, and everything after it: the newest picture is there within
the time of one catch-up, about 50 ms. Nothing is older than `MOST_REST_S`: then, too, all that was kept is decoded.
Where sizes tell nothing (a constant bitrate is filled with noise, B-pictures) the reader does not rest.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping

from vedette.streamer.errors import SourceError, SourceRefused
from vedette.streamer.sources.base import EndOfStream, Info, Reader, Want
from vedette.streamer.sources.libav import U8, Decoder, libraries
from vedette.streamer.sources.opencv import MAX_PIXELS, OpenCvReader

#: The tags of the codecs whose packets come with start codes, and FFmpeg's name of their decoder.
DECODERS: Mapping[str, str] = {
    "h264": "h264", "avc1": "h264", "x264": "h264", "hevc": "hevc", "hvc1": "hevc", "hev1": "hevc", "h265": "hevc",
}  # fmt: skip
#: Packets between keyframes, whose sizes are remembered, and how many of them there must be to know what is usual.
SIZES, ENOUGH = 90, 20
#: A single packet, and five in a row on average, stir when they are above the median by so many median deviations, and
#: by this share of the median at least.
ONE_DEVIATIONS, ONE_SHARE = 8.0, 0.5
FEW, FEW_DEVIATIONS, FEW_SHARE = 5, 3.0, 0.2
#: Bytes by which packets differ anyway.
LEAST_BYTES = 48
#: Sizes that differ by more than this share of their median, or are above this share of a keyframe, tell nothing.
RAGGED, FULL = 0.6, 0.25
#: The oldest that what was not decoded may become, seconds of the stream's clock; and how many bytes may be kept.
MOST_REST_S, MOST_KEPT = 2.0, 16_000_000
#: How much later a keyframe that is due may come, seconds: one picture is cheaper than all that was kept.
SLACK_S = 0.1
#: Packets in a row that may be nonsense.
MOST_BAD = 1024


class SizeWatch:
    """What is usual between keyframes, in bytes, and whether a packet is more than that."""

    def __init__(self) -> None:
        self._sizes: deque[int] = deque(maxlen=SIZES)
        self._keyframe = 0

    def keyframe(self, size: int) -> None:
        """A keyframe came."""
        self._keyframe = size

    def saw(self, size: int) -> None:
        """A packet came whose picture was looked at, or did not stir."""
        self._sizes.append(size)

    def forget(self) -> None:
        """What was usual is not any more."""
        self._sizes.clear()

    def tells(self) -> bool:
        """Whether sizes show that something moves."""
        if len(self._sizes) < ENOUGH or not self._keyframe:
            return False
        median, deviation = self._usual()
        return deviation <= max(RAGGED * median, LEAST_BYTES) and median <= FULL * self._keyframe

    def stirs(self, size: int) -> bool:
        """Whether this packet is larger than usual, by itself or together with those before it."""
        median, deviation = self._usual()
        if size > median + max(ONE_DEVIATIONS * deviation, ONE_SHARE * median, LEAST_BYTES):
            return True
        few = [*list(self._sizes)[1 - FEW :], size]
        return sum(few) / len(few) > median + max(FEW_DEVIATIONS * deviation, FEW_SHARE * median, LEAST_BYTES)

    def _usual(self) -> tuple[float, float]:
        """Median, and median deviation from it."""
        median = statistics.median(self._sizes)
        return median, statistics.median(abs(size - median) for size in self._sizes)


class PacketReader:
    """A `Resting` reader over the packets of an `OpenCvReader`."""

    def __init__(self, packets: OpenCvReader, decoder: Decoder) -> None:
        self._packets, self._decoder = packets, decoder
        self._watch = SizeWatch()
        self._buffer: U8 | None = None
        self._headers: bytes | None = None
        self._kept: list[tuple[bytes, int]] = []
        self._kept_bytes, self._resting, self._ended = 0, False, False
        self._looked_s = self._key_s = 0.0
        self._between_keys_s = float("inf")
        self._bad = 0
        self.fresh = True

    @property
    def info(self) -> Info:
        """What the container says about the stream."""
        return self._packets.info

    @property
    def resting(self) -> bool:
        """Whether packets are kept instead of decoded now."""
        return self._resting

    def rest(self, wanted: bool) -> None:
        """See `Resting.rest`."""
        if not wanted:
            self._watch.forget()  # usual is only what comes while nothing moves
            self._resting = False
        elif not self._resting and self._watch.tells():
            self._resting = True

    def grab(self) -> float:
        """See `Reader.grab`. While it rests, the time of the packet that was kept."""
        if not self._resting and not self._kept and (stamp := self._decoder.receive()) is not None:
            self.fresh = True
            return stamp / 1e6
        while True:
            stamp_s, data, is_key = self._read()
            pts = round(stamp_s * 1e6)
            if data is None:
                self._catch_up()
                if (stamp := self._decoder.receive()) is None:
                    raise EndOfStream(self._packets.name)
                self.fresh = True
                return stamp / 1e6
            if self._resting or self._kept:
                if self._keep(data, pts, is_key):
                    return stamp_s
                continue
            self._note(data, pts, is_key)
            if self._feed(data, pts):
                continue
            if (stamp := self._decoder.receive()) is not None:
                self.fresh, self._looked_s = True, stamp / 1e6
                return stamp / 1e6

    def retrieve(self) -> U8:
        """See `Reader.retrieve`."""
        height, width = self._decoder.size_hw
        if height * width > MAX_PIXELS:
            raise SourceRefused(f"{self._packets.name}: a picture of {width}x{height} is too large")
        self._buffer = self._decoder.picture(self._buffer)
        if self._buffer is None:
            raise SourceError(f"{self._packets.name}: a picture cannot be converted")
        return self._buffer

    def close(self) -> None:
        """Let the source go."""
        self._packets.close()
        self._decoder.close()

    def _read(self) -> tuple[float, bytes | None, bool]:
        """The next packet and its time; None after the last one of a file."""
        if self._ended:
            return 0.0, None, False
        try:
            stamp_s = self._packets.grab()
        except EndOfStream:
            self._ended = True
            return 0.0, None, False
        data, is_key = self._packets.packet()
        if self._headers is None:
            headers = self._packets.headers()
            self._headers = headers if headers.startswith((b"\0\0\1", b"\0\0\0\1")) else b""
        return stamp_s, (self._headers + data if is_key else data), is_key

    def _keep(self, data: bytes, pts: int, is_key: bool) -> bool:
        """Take a packet in without decoding more than must be; false when there is nothing to tell of it."""
        stirs = self._resting and not is_key and self._watch.stirs(len(data))
        self._note(data, pts, is_key)
        if is_key:
            self._kept, self._kept_bytes = [], 0
        self._kept.append((data, pts))
        self._kept_bytes += len(data)
        age_s, most_s = pts / 1e6 - self._looked_s, MOST_REST_S + SLACK_S
        if is_key and self._resting and not 0 <= age_s + self._between_keys_s <= most_s:
            self.fresh = self._look(data, pts)
        elif stirs or not 0 <= age_s <= most_s or not self._resting or self._kept_bytes > MOST_KEPT:
            self._resting = self._resting and not stirs
            self.fresh = self._catch_up()
            if not self.fresh and not self._resting:
                return False  # nothing that can be shown came out
        else:
            self.fresh = False
        if self.fresh:
            self._looked_s = pts / 1e6
        return True

    def _look(self, data: bytes, pts: int) -> bool:
        """Decode a keyframe alone; it stays the first of what is kept. Whether there is a picture."""
        self._decoder.flush()
        self._decoder.send(data, pts)
        self._decoder.send(None)
        found = False
        while self._decoder.receive() is not None:
            found = True
        self._decoder.flush()
        return found

    def _catch_up(self) -> bool:
        """Decode everything that was kept; the newest picture is the current one. Whether there is one."""
        if not self._kept:
            if self._ended:
                self._decoder.send(None)
            return False
        found = False
        for data, pts in self._kept:
            self._feed(data, pts)
            while self._decoder.receive() is not None:
                found = True
        self._kept, self._kept_bytes = [], 0
        if self._ended:
            self._decoder.send(None)
        return found

    def _note(self, data: bytes, pts: int, is_key: bool) -> None:
        if is_key:
            self._watch.keyframe(len(data))
            self._between_keys_s, self._key_s = pts / 1e6 - self._key_s, pts / 1e6
        else:
            self._watch.saw(len(data))

    def _feed(self, data: bytes, pts: int) -> bool:
        """Whether the packet was nonsense. Raises SourceError after too many in a row."""
        if self._decoder.send(data, pts):
            self._bad = 0
            return False
        self._bad += 1
        if self._bad > MOST_BAD:
            raise SourceError(f"{self._packets.name}: decoding failed: {self._bad} packets in a row")
        return True


def open_reader(
    source: str, want: Want, *, live: bool, options: Mapping[str, str], bottom_up: bool | None = None
) -> Reader:
    """The stream opened by OpenCV's FFmpeg; a `Resting` one when wanted and the codec and the machine allow it."""
    able = want.rest and libraries() is not None
    reader = OpenCvReader(
        source, want, live=live, options=options, bottom_up=bottom_up, packets=DECODERS if able else ()
    )
    if not reader.packets:
        return reader
    try:
        return PacketReader(reader, Decoder(DECODERS[reader.info.codec], MAX_PIXELS))
    except LookupError:  # this FFmpeg was built without it, or OpenCV would not have opened the stream
        reader.close()
        return OpenCvReader(source, want, live=live, options=options, bottom_up=bottom_up)
