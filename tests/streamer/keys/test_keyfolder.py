"""Keys in files: private whatever the umask is, whole or absent, never written over, never printed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from vedette.streamer.cli import main
from vedette.streamer.errors import ConfigError
from vedette.streamer.keys.folder import KeyFolder, new_pair, pair_of, read_key


@pytest.fixture(params=[0o000, 0o022, 0o377], ids=["000", "022", "377"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """An odd umask."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def keys(*words: str, folder: Path) -> int:
    """Run ``vedette keys`` on a folder."""
    return main(["keys", *words, "--dir", str(folder)])


def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    """Folders 0700, files 0600, and the subscriber's own secret too."""
    del umask
    folder, out = tmp_path / "keys", tmp_path / "wall.key"
    assert keys("new", "wall", "--out", str(out), folder=folder) == 0
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*"), out]}
    for path, mode in modes.items():
        assert mode == (0o700 if path.is_dir() else 0o600), path
    names = {str(path.relative_to(folder)) for path in modes if path.is_relative_to(folder)}
    assert names == {".", "allowed", "allowed/wall.pub", "server.key", "server.pub"}


def test_new_list_revoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is let in is listed with its public key, what is revoked is gone; no command prints a secret."""
    folder = tmp_path / "keys"
    for name in ("wall", "phone"):
        assert keys("new", name, "--out", str(tmp_path / f"{name}.key"), folder=folder) == 0
    assert keys("list", folder=folder) == 0
    said = capsys.readouterr().out
    secrets = [read_key(tmp_path / f"{name}.key", secret=True) for name in ("wall", "phone")]
    assert all(pair_of(secret).public in said for secret in secrets)
    assert KeyFolder(folder).server().public in said
    assert not any(secret in said for secret in [*secrets, KeyFolder(folder).server().secret])
    assert keys("revoke", "wall", folder=folder) == 0
    assert set(KeyFolder(folder).subscribers()) == {"phone"}
    assert keys("revoke", "wall", folder=folder) == 2
    assert "let in: phone" in capsys.readouterr().err


def test_a_pair_can_be_made_where_it_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`pair` on the subscriber's machine, `new --public` on the site's: the secret never travels."""
    assert main(["keys", "pair", str(tmp_path / "mine.key")]) == 0
    public = capsys.readouterr().out.split()[-1]
    assert keys("new", "mine", "--public", public, folder=tmp_path / "keys") == 0
    assert KeyFolder(tmp_path / "keys").subscribers() == {"mine": public}
    assert pair_of(read_key(tmp_path / "mine.key", secret=True)).public == public
    assert list((tmp_path / "keys").glob("*mine*")) == []


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x" * 65, "a b", "-", "\u00e4"])
def test_names_are_no_paths(tmp_path: Path, name: str) -> None:
    """A name that could leave the folder is refused, and nothing is written, outside or in."""
    folder = tmp_path / "keys"
    assert main(["keys", "new", "--dir", str(folder), "--out", str(tmp_path / "k"), "--", name]) == 2
    assert main(["keys", "revoke", "--dir", str(folder), "--", name]) == 2
    assert not (tmp_path / "k").exists()
    assert [path.name for path in (folder / "allowed").iterdir()] == []


def test_nothing_is_written_over(tmp_path: Path) -> None:
    """A second `new` of the name, of the key, or into an existing file changes nothing and lets nobody in."""
    folder, out = tmp_path / "keys", tmp_path / "k"
    assert keys("new", "wall", "--out", str(out), folder=folder) == 0
    before = {path: path.read_bytes() for path in [out, *folder.rglob("*.*")]}
    public = KeyFolder(folder).subscribers()["wall"]
    assert keys("new", "wall", "--out", str(tmp_path / "other"), folder=folder) == 2
    assert keys("new", "again", "--public", public, folder=folder) == 2
    assert keys("new", "third", "--out", str(out), folder=folder) == 2
    assert {path: path.read_bytes() for path in [out, *folder.rglob("*.*")]} == before


def test_a_key_that_others_could_read_is_refused(tmp_path: Path) -> None:
    """Like ssh: an open folder or secret is an error with its fix; links and pipes are not followed."""
    folder = KeyFolder(tmp_path / "keys")
    folder.create()
    (folder.path / "server.key").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 0600"):
        folder.server()
    (folder.path / "server.key").chmod(0o600)
    folder.path.chmod(0o750)
    with pytest.raises(ConfigError, match="chmod 0700"):
        folder.server()
    folder.path.chmod(0o700)
    (tmp_path / "link").symlink_to(folder.path / "server.key")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for odd in ("link", "pipe", "keys", "absent"):
        with pytest.raises(ConfigError):
            read_key(tmp_path / odd, secret=True)


@pytest.mark.parametrize(
    "text", ["", "short", "x" * 41, "x" * 39 + "\n\n", "\u00e4" * 40, "~" * 40, "a" * 5000, "#" * 40]
)
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    """Whatever stands in the file: the error says what is needed and repeats nothing."""
    file = tmp_path / "k"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        read_key(file, secret=True)
    assert text == "" or text not in str(caught.value)


def test_every_pair_is_another(tmp_path: Path) -> None:
    """Keys come from the system's randomness."""
    assert len({new_pair().secret for _ in range(20)}) == 20
    first, second = KeyFolder(tmp_path / "a"), KeyFolder(tmp_path / "b")
    first.create()
    second.create()
    assert first.server() != second.server()
    before = first.server()
    first.create()
    assert first.server() == before
