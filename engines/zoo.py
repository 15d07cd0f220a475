"""Named detectors that others publish: where they are, what they must hash to, and how they come here.

A download is resumed after an interruption, checked by size and SHA-256, and only then given its name (atomically,
after fsync). A mismatch is an error and leaves nothing behind. Nothing is downloaded unless a person asks for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vedette.engines.api import EngineFault

WEIGHTS = Path(__file__).parent / "weights"
#: seconds without a byte after which a download gives up; it goes on from there when asked again
STALLED_S = 30.0
CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Model:
    """One published file. family: how `vedette.engines.adapt` decodes it, None for our own graphs."""

    name: str
    url: str
    sha256: str
    size_bytes: int
    family: str | None
    licence: str
    note: str


_YOLOX = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/"
_LICENCE = "Apache-2.0 (code; the publisher states no separate licence for the weights)"


def _yolox(kind: str, sha256: str, size_bytes: int, note: str) -> Model:
    return Model(f"yolox-{kind}", f"{_YOLOX}yolox_{kind}.onnx", sha256, size_bytes, "yolox", _LICENCE, note)


#: The publisher gives no hashes; these are the ones that independent projects pin for the same release files.
MODELS: dict[str, Model] = {
    m.name: m
    for m in (
        _yolox(
            "nano",
            "c789161ed43c8269fcd4e67c67eeeb4e80c622da2eb296a20bc6007bd18a0b7d",
            3_659_407,
            "416x416, COCO mAP 25.8",
        ),
        _yolox(
            "tiny",
            "427cc366d34e27ff7a03e2899b5e3671425c262ea2291f88bb942bc1cc70b0f7",
            20_219_662,
            "416x416, COCO mAP 32.8",
        ),
        _yolox(
            "s",
            "c5c2d13e59ae883e6af3b45daea64af4833a4951c92d116ec270d9ddbe998063",
            35_858_002,
            "640x640, COCO mAP 40.5",
        ),
        _yolox(
            "l",
            "7860ae79de6c89a3c1eb72ae9a2756c0ccfbe04b7791bb5880afabd97855a411",
            216_746_733,
            "640x640, COCO mAP 50.1",
        ),
        _yolox(
            "x",
            "c892d7aaf1c4746d8a4d675bec669a4db4f434b4ee1efb654bc9b353379c7c55",
            396_142_663,
            "640x640, COCO mAP 51.5",
        ),
    )
}

#: called with (bytes so far, bytes in all)
Progress = Callable[[int, int], None]


def cache_dir() -> Path:
    """Where pulled models live: ``$XDG_CACHE_HOME/vedette/models``, by default under ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vedette" / "models"


def find(name: str) -> Model:
    """The table's entry. Raises EngineFault listing the names."""
    if name not in MODELS:
        raise EngineFault(f"models: needs one of {sorted(MODELS)}, got {name!r}")
    return MODELS[name]


def path_of(model: Model, folder: Path | None = None) -> Path:
    """Where the model is once it has been pulled; the name carries the hash, so a new release is a new file."""
    return (folder or cache_dir()) / f"{model.name}-{model.sha256[:12]}.onnx"


def shipped() -> list[Path]:
    """The model files that come with the package."""
    return sorted(WEIGHTS.glob("*.onnx"))


def check_shipped(path: Path) -> Path:
    """The path itself when the file is what ``weights/SHA256SUMS`` says. Raises EngineFault when it was changed.

    A graph with a sidecar names its own hash there, and is checked when that is read.
    """
    for line in (path.parent / "SHA256SUMS").read_text().splitlines():
        right, _, name = line.partition("  ")
        if name == path.name and hashlib.sha256(path.read_bytes()).hexdigest() != right:
            raise EngineFault(f"{path}: is not the file that was shipped, its SHA-256 differs; install vedette again")
    return path


def verify(model: Model, folder: Path | None = None) -> Path:
    """The path of a pulled model whose size and hash are right. Raises EngineFault otherwise; changes nothing."""
    path = path_of(model, folder)
    if not path.is_file():
        raise EngineFault(f"{model.name}: not pulled, nothing at {path}; run `vedette models pull {model.name}`")
    _check(path, model)
    return path


def pull(model: Model, folder: Path | None = None, progress: Progress | None = None) -> Path:
    """Fetch a model unless it is here already and right; returns its path.

    Raises EngineFault when the server cannot be reached, refuses, stalls, or sends something else. A partial file is
    kept for the next attempt, except when it is wrong.
    """
    path = path_of(model, folder)
    if path.is_file():
        with contextlib.suppress(EngineFault):
            return verify(model, folder)
        path.unlink()  # it rotted: what is here under this name must be right
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with _locked(part) as file:
        if path.is_file() and path.stat().st_size == model.size_bytes:  # another process was faster
            return verify(model, folder)
        _download(model, file, progress or (lambda *_: None))
        try:
            _check(part, model)
        except EngineFault:
            part.unlink(missing_ok=True)
            raise
        os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    return path


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[IO[bytes]]:
    """The partial file, open for appending, held by this process alone."""
    with open(part, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise EngineFault(f"{part}: another process is pulling this model; wait for it") from e
        yield file


def _download(model: Model, file: IO[bytes], progress: Progress) -> None:
    """Append what is missing to ``file``."""
    import urllib3

    have = file.seek(0, os.SEEK_END)
    if have > model.size_bytes:
        have = file.truncate(0)
    if have == model.size_bytes:
        return
    pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=15.0, read=STALLED_S), retries=urllib3.Retry(3, read=0))
    headers = {"User-Agent": "vedette", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with contextlib.closing(pool.request("GET", model.url, headers=headers, preload_content=False)) as answer:
            _receive(model, file, answer, have, progress)
    except (urllib3.exceptions.HTTPError, OSError) as e:
        raise EngineFault(
            f"{model.name}: {model.url} cannot be read: {_cause(e)}; try again, it goes on from "
            f"{file.seek(0, os.SEEK_END)} of {model.size_bytes} bytes"
        ) from e
    finally:
        pool.clear()


def _receive(model: Model, file: IO[bytes], answer: Any, have: int, progress: Progress) -> None:
    if answer.status not in (200, 206):
        raise EngineFault(f"{model.name}: {model.url} answered HTTP {answer.status}; the publisher may have moved it")
    starts = f"bytes {have}-"
    if have and (answer.status == 200 or not answer.headers.get("Content-Range", "").startswith(starts)):
        have = file.truncate(0)  # the server does not resume: from the beginning
        if answer.status == 206:
            raise OSError(f"the server sent another part than {starts}")
    progress(have, model.size_bytes)
    for chunk in answer.stream(CHUNK):
        have += len(chunk)
        if have > model.size_bytes:
            file.truncate(0)
            raise EngineFault(
                f"{model.name}: {model.url} sends more than the {model.size_bytes} bytes it should have; "
                "nothing was kept"
            )
        file.write(chunk)
        progress(have, model.size_bytes)
    file.flush()
    if have < model.size_bytes:
        raise OSError(f"the connection ended at {have} bytes")


def _check(path: Path, model: Model) -> None:
    """Raises EngineFault unless size and SHA-256 are the table's."""
    size = path.stat().st_size
    if size != model.size_bytes:
        raise EngineFault(f"{path}: needs {model.size_bytes} bytes for {model.name}, got {size}; pull it again")
    with open(path, "rb") as f:
        got = hashlib.file_digest(f, "sha256").hexdigest()
    if got != model.sha256:
        raise EngineFault(
            f"{path}: SHA-256 needs to be {model.sha256} for {model.name}, got {got}; "
            f"the file at {model.url} is not the one that was reviewed, do not use it"
        )


def _cause(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return str(reason).splitlines()[0][:200] if str(reason) else type(error).__name__


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
