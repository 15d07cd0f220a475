"""The cameras of the fault tests: a clip of people, looped, with rules that fire all the time."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

KEYFRAME_S = 1.0
#: Pictures a second that the cameras send; how many of them are analysed is chosen by the load (tests/faults/load.py).
SOURCE_FPS = 10.0


def busy_camera(clip: Path) -> dict[str, Any]:
    """A clip as an endless live camera whose rules fire all the time."""
    columns = [i / 6 for i in range(7)]
    zones = {f"z{i}": [[a, 0.0], [b, 0.0], [b, 1.0], [a, 1.0]] for i, (a, b) in enumerate(itertools.pairwise(columns))}
    return {
        "source": str(clip),
        "loop": True,
        "fps": 7,
        "zones": zones,
        "lines": {"middle": [[0.5, 0.0], [0.5, 1.0]]},
        "rules": [
            *({"kind": "zone", "zone": zone} for zone in zones),
            {"kind": "line", "line": "middle", "direction": "both"},
        ],
    }


def live_camera(clip: Path, url: str, **more: Any) -> dict[str, Any]:
    """The same rules on an RTSP camera."""
    camera = busy_camera(clip) | {"source": url}
    del camera["loop"]
    return camera | more


def server_options(clip: Path, cameras: int, *more: str) -> tuple[str, ...]:
    """Options of tools/rtsp_server.py for a clip at `SOURCE_FPS` pictures a second."""
    length = ("--fps", f"{SOURCE_FPS:g}", "--seconds", "20", "--keyframe", str(KEYFRAME_S))
    return "--cameras", str(cameras), "--file", str(clip), *length, *more
