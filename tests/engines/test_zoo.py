"""Pulling models from a real HTTP server that resumes, refuses, stalls half way and lies."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vedette.engines import zoo
from vedette.engines.api import EngineFault
from vedette.engines.load import resolve
from vedette.streamer.cli import main

BODY = np.random.default_rng(0).integers(0, 256, 700_001, dtype=np.uint8).tobytes()


class Shelf(http.server.ThreadingHTTPServer):
    """Serves BODY at /model.onnx; `cut_after` ends the first answer early, `resumes` honours Range."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cut_after: int | None = None
        self.resumes = True
        self.body = BODY
        self.ranges: list[str | None] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Shelf

    def do_GET(self) -> None:
        shelf, asked = self.server, self.headers.get("Range")
        shelf.ranges.append(asked)
        if self.path != "/model.onnx":
            self.send_error(404)
            return
        start = int(asked.split("=")[1].rstrip("-")) if asked and shelf.resumes else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(shelf.body) - 1}/{len(shelf.body)}")
        self.send_header("Content-Length", str(len(shelf.body) - start))
        self.end_headers()
        stop = len(shelf.body) if shelf.cut_after is None else shelf.cut_after
        shelf.cut_after = None
        self.wfile.write(shelf.body[start:stop])

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    server = Shelf()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def model(shelf: Shelf) -> zoo.Model:
    url = f"http://127.0.0.1:{shelf.server_address[1]}/model.onnx"
    return zoo.Model("paper", url, hashlib.sha256(BODY).hexdigest(), len(BODY), None, "CC0", "test")


def test_a_model_arrives_whole_and_only_once(shelf: Shelf, model: zoo.Model, tmp_path: Path) -> None:
    """The file has the right bytes and name, progress ends at the size, and a second pull asks nobody."""
    seen: list[tuple[int, int]] = []
    path = zoo.pull(model, tmp_path, lambda *p: seen.append(p))
    assert path.read_bytes() == BODY
    assert seen[0] == (0, len(BODY))
    assert seen[-1] == (len(BODY), len(BODY))
    assert [p[0] for p in seen] == sorted(p[0] for p in seen)
    assert zoo.pull(model, tmp_path) == path
    assert len(shelf.ranges) == 1
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_an_interrupted_pull_goes_on_where_it_stopped(shelf: Shelf, model: zoo.Model, tmp_path: Path) -> None:
    """After a cut connection the error says how far it came, and the next pull asks only for the rest."""
    shelf.cut_after = 300_000
    with pytest.raises(EngineFault, match=r"try again, it goes on from \d+ of 700001"):
        zoo.pull(model, tmp_path)
    kept = next(tmp_path.glob("*.part")).stat().st_size
    assert 0 < kept <= 300_000
    assert zoo.pull(model, tmp_path).read_bytes() == BODY
    assert shelf.ranges == [None, f"bytes={kept}-"]


def test_a_server_that_does_not_resume_is_read_from_the_start(shelf: Shelf, model: zoo.Model, tmp_path: Path) -> None:
    """A 200 to a ranged request replaces what was there instead of being appended to it."""
    shelf.resumes = False
    zoo.path_of(model, tmp_path).with_suffix(".part").write_bytes(b"x" * 1000)
    assert zoo.pull(model, tmp_path).read_bytes() == BODY


def test_a_wrong_hash_is_an_error_and_leaves_nothing(shelf: Shelf, model: zoo.Model, tmp_path: Path) -> None:
    """Other bytes of the right length are refused with both hashes, and no file of any name stays."""
    shelf.body = bytes(len(BODY))
    with pytest.raises(EngineFault, match=r"SHA-256 needs to be [0-9a-f]{64} for paper, got [0-9a-f]{64}"):
        zoo.pull(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_sends_too_much_is_stopped(shelf: Shelf, model: zoo.Model, tmp_path: Path) -> None:
    """More bytes than the table says end the download, and none of them are kept."""
    shelf.body = BODY + b"more"
    with pytest.raises(EngineFault, match="sends more than the 700001 bytes"):
        zoo.pull(model, tmp_path)
    assert all(p.stat().st_size == 0 for p in tmp_path.iterdir())


def test_a_missing_file_and_a_dead_server_are_sentences(model: zoo.Model, tmp_path: Path) -> None:
    """HTTP errors and refused connections name the URL and the cause."""
    with pytest.raises(EngineFault, match=r"answered HTTP 404"):
        zoo.pull(dataclasses.replace(model, url=model.url.replace("model", "gone")), tmp_path)
    with pytest.raises(EngineFault, match=r"http://127.0.0.1:9/x cannot be read"):
        zoo.pull(dataclasses.replace(model, url="http://127.0.0.1:9/x"), tmp_path)


def test_two_pulls_of_one_model_do_not_mix(model: zoo.Model, tmp_path: Path) -> None:
    """While one process holds the partial file another is refused, and bytes are never interleaved."""
    part = zoo.path_of(model, tmp_path).with_suffix(".part")
    with zoo._locked(part), pytest.raises(EngineFault, match="another process is pulling"):
        zoo.pull(model, tmp_path)


def test_a_rotten_file_is_found_and_replaced(model: zoo.Model, tmp_path: Path) -> None:
    """verify refuses a changed file, and pull fetches it anew."""
    path = zoo.pull(model, tmp_path)
    path.write_bytes(BODY[:-1] + b"!")
    with pytest.raises(EngineFault, match="SHA-256"):
        zoo.verify(model, tmp_path)
    assert zoo.pull(model, tmp_path).read_bytes() == BODY
    assert zoo.verify(model, tmp_path) == path


def test_the_table_is_complete() -> None:
    """Every entry has an https URL, a full hash, a size, a family we decode and a licence."""
    from vedette.engines.families import FAMILIES

    for name, entry in zoo.MODELS.items():
        assert entry.name == name
        assert entry.url.startswith("https://")
        assert len(entry.sha256) == 64
        assert entry.size_bytes > 1_000_000
        assert entry.family in FAMILIES
        assert entry.licence


@pytest.fixture
def one_model(monkeypatch: pytest.MonkeyPatch, model: zoo.Model, tmp_path: Path) -> zoo.Model:
    monkeypatch.setattr(zoo, "MODELS", {"paper": model})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return model


@pytest.mark.usefixtures("one_model")
def test_the_command_lists_pulls_and_verifies(capsys: pytest.CaptureFixture[str]) -> None:
    """`vedette models` shows what is available, fetches it to the cache, and then shows and verifies it."""
    assert main(["models", "list", "--format", "json"]) == 0
    rows = {r["name"]: r for r in json.loads(capsys.readouterr().out)}
    assert rows["paper"]["state"] == "available"
    assert rows["vedette-nano"]["state"] == "shipped"
    assert main(["models", "pull", "paper"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.read_bytes() == BODY
    assert main(["models", "verify"]) == 0
    assert "ok: paper" in capsys.readouterr().out
    assert main(["models", "list"]) == 0
    assert "pulled" in capsys.readouterr().out


@pytest.mark.usefixtures("one_model")
def test_the_command_names_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown name and a model that is not here exit 3 with a sentence."""
    assert main(["models", "pull", "poper"]) == 3
    assert "got 'poper'" in capsys.readouterr().err
    assert main(["models", "verify", "paper"]) == 3
    assert "vedette models pull paper" in capsys.readouterr().err


def test_a_shipped_model_that_was_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte is enough; the engine is never built from it."""
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    body = b"x" * 1000
    (tmp_path / "ours.onnx").write_bytes(body)
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(body).hexdigest()}  ours.onnx\n")
    assert resolve("ours") == tmp_path / "ours.onnx"
    (tmp_path / "ours.onnx").write_bytes(body[:-1] + b"y")
    with pytest.raises(EngineFault, match="not the file that was shipped"):
        resolve("ours")


def test_every_shipped_model_has_its_hash() -> None:
    """In SHA256SUMS, or in a sidecar that is checked when the graph is loaded; and each is right."""
    listed = (zoo.WEIGHTS / "SHA256SUMS").read_text()
    for path in zoo.shipped():
        zoo.check_shipped(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        sidecars = [side.read_text() for side in zoo.WEIGHTS.glob(f"{path.stem}*.json")]
        assert digest in listed or any(digest in text for text in sidecars), path


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "yolox-tiny/../x", "/etc/passwd", "", "https://evil.example/x.onnx"]
)
def test_pull_takes_names_of_the_table_only(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A name is looked up, never made a path or an address."""
    assert main(["models", "pull", name]) == 3
    assert "needs one of" in capsys.readouterr().err
