"""Frames from capture to infer: ZeroMQ descriptors, pixels in a `Ring`, and credit that bounds everything.

`FrameWriter` is the capture side. It puts a picture into a free slot and sends its descriptor, or drops the
picture and counts why. `FrameReader` is the infer side: a thread keeps only the newest frame a camera (the credit of
a superseded one goes back at once) and `take` hands out what is waiting as leases.

Whatever is killed, slots are never torn and never lost: a reader's new ``boot`` reclaims every slot, frames paid for
by another boot are dropped, a writer's new ``incarnation`` has its own ring file, and a writer without credit asks which
slots are really held.
"""

from __future__ import annotations

from vedette.streamer.bus.link import Cut, endpoint_of
from vedette.streamer.bus.mailbox import Lease, Slot, Snapshot
from vedette.streamer.bus.reader import FrameReader
from vedette.streamer.bus.writer import FrameWriter

__all__ = ["Cut", "FrameReader", "FrameWriter", "Lease", "Slot", "Snapshot", "endpoint_of"]
