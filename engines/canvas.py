"""The engine's canvas: "416x256" in words, (256, 416) in arrays."""

from __future__ import annotations

from vedette.engines.api import EngineFault

DEFAULT_SIZE = "416x256"
#: names for the sizes we measured
SIZES = {"fast": "320x192", "default": DEFAULT_SIZE, "quality": "640x384"}


def parse_size(size: str) -> tuple[int, int]:
    """ "416x256" -> (256, 416), height first; both positive multiples of 32."""
    text = SIZES.get(size, size)
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise EngineFault(f"engine.size: needs WIDTHxHEIGHT or one of {sorted(SIZES)}, got {size!r}")
    w, h = int(width), int(height)
    if min(w, h) < 64 or max(w, h) > 4096 or w % 32 or h % 32:
        raise EngineFault(f"engine.size: width and height need multiples of 32 from 64 to 4096, got {size!r}")
    return h, w
