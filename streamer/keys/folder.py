"""The keys of a site: its own pair, and the public keys of the subscribers it lets in. Plain files, nothing else.

``FOLDER/server.key`` is the site's secret, ``FOLDER/server.pub`` what its subscribers must know, and
``FOLDER/allowed/NAME.pub`` one subscriber each: one line of 40 characters (Z85, RFC 32 of ZeroMQ). Folders are 0700,
files 0600. A file appears or vanishes whole, so that a running daemon never reads half a key.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import zmq
from zmq.utils import z85

from vedette.streamer.errors import ConfigError

#: What a subscriber may be called; the same as a sink.
NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$")
ALLOWED = "allowed"
_KEY = re.compile(rb"^[\x21-\x7e]{40}\n?$")


class Pair(NamedTuple):
    """A CURVE key pair, Z85 text."""

    public: str
    secret: str


def new_pair() -> Pair:
    """A fresh pair from the system's randomness; neither key begins with a dash, as an option does."""
    while True:
        public, secret = zmq.curve_keypair()
        if not (public.startswith(b"-") or secret.startswith(b"-")):
            return Pair(public.decode(), secret.decode())


def pair_of(secret: str) -> Pair:
    """The pair a secret key belongs to."""
    return Pair(zmq.curve_public(secret.encode()).decode(), secret)


def checked(key: str, where: str) -> str:
    """The key itself when it is 40 characters of Z85. Raises ConfigError, which never shows it: it may be a secret."""
    if not _is_z85(key):
        raise ConfigError(f"{where}: needs a CURVE key, 40 characters of Z85, got {len(key)} characters")
    return key


def _is_z85(key: str) -> bool:
    try:
        return len(key) == 40 and len(z85.decode(key.encode("ascii"))) == 32
    except (ValueError, KeyError, struct.error):  # other letters, or five of them that are more than 32 bits
        return False


def read_key(path: Path, *, secret: bool) -> str:
    """The key in a file. secret: refuse a file that others could read. Raises ConfigError saying what to do."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(
            f"{path}: the key cannot be read ({error.strerror}); make it with `vedette keys`, as the user who reads it"
        ) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path}: needs a file with a key, got something else")
        if secret and status.st_mode & 0o077:
            raise ConfigError(f"{path}: others can read this secret, got mode {status.st_mode & 0o777:04o}; chmod 0600")
        raw = os.read(descriptor, 64)
    finally:
        os.close(descriptor)
    if _KEY.fullmatch(raw) is None:
        raise ConfigError(f"{path}: needs one line of 40 characters, a CURVE key in Z85")
    return checked(raw.decode("ascii").rstrip("\n"), str(path))


def write_key(path: Path, key: str) -> None:
    """A new file, 0600, whole or absent. Raises ConfigError when the name is taken: a key is never written over."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                os.fchmod(descriptor, 0o600)  # whatever the umask is
                file.write(key + "\n")
                file.flush()
                os.fsync(descriptor)
            os.link(staged, path)
        finally:
            staged.unlink()
    except FileExistsError as error:
        raise ConfigError(f"{path}: is there already; revoke it first, or choose another name") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


class KeyFolder:
    """One site's keys. Nothing is cached: `stamp` says cheaply whether the list of subscribers changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._allowed = path / ALLOWED

    def create(self) -> None:
        """Make what is missing: the folders, and the site's own pair. Raises ConfigError."""
        try:
            for folder in (self.path, self._allowed):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be made: {error.strerror}; name a folder of yours") from error
        if not (self.path / "server.key").exists():
            pair = new_pair()
            write_key(self.path / "server.key", pair.secret)
            (self.path / "server.pub").unlink(missing_ok=True)
            write_key(self.path / "server.pub", pair.public)

    def exists(self) -> bool:
        """Whether there is a list of subscribers."""
        return self._allowed.is_dir()

    def server(self) -> Pair:
        """The site's own pair. Raises ConfigError when there is none, or when others could read it."""
        mode = self._mode()
        if mode & 0o077:
            raise ConfigError(f"{self.path}: others can enter, got mode {mode:04o}; chmod 0700")
        return pair_of(read_key(self.path / "server.key", secret=True))

    def _mode(self) -> int:
        try:
            return stat.S_IMODE(self.path.stat().st_mode)
        except OSError as error:
            raise ConfigError(
                f"{self.path}: no keys here ({error.strerror}); `vedette keys new NAME --dir {self.path}` makes them"
            ) from error

    def add(self, name: str, public: str) -> None:
        """Let a subscriber in. Raises ConfigError when the name or the key is known already."""
        if NAME.fullmatch(name) is None:
            raise ConfigError(f"vedette keys: a name needs letters, digits, _ . or -, at most 64, got {name!r}")
        checked(public, "vedette keys")
        for other, key in self.subscribers().items():
            if key == public:
                raise ConfigError(f"vedette keys: this key is let in already, as {other!r}; revoke that first")
        write_key(self._allowed / f"{name}.pub", public)

    def remove(self, name: str) -> None:
        """Let a subscriber in no more. Raises ConfigError when nobody is called so."""
        known = {path.stem: path for path in self._files()}
        if name not in known:
            have = ", ".join(known) or "nobody"
            raise ConfigError(f"vedette keys: nobody is called {name!r}; let in: {have}")
        known[name].unlink()

    def subscribers(self, broken: Callable[[str], object] | None = None) -> dict[str, str]:
        """name -> public key of everybody who is let in. broken: told of files that hold no key, which are then left
        out; without it they raise ConfigError. Raises OSError when the folder cannot be read."""
        found = {}
        for path in self._files():
            try:
                found[path.stem] = read_key(path, secret=False)
            except ConfigError as error:
                if broken is None:
                    raise
                broken(str(error))
        return found

    def stamp(self) -> tuple[object, ...]:
        """Changes whenever the list of subscribers may have changed. Raises OSError when it cannot be read."""
        with os.scandir(self._allowed) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        return tuple(sorted((name, status.st_mtime_ns, status.st_ino, status.st_size) for name, status in found))

    def _files(self) -> list[Path]:
        """Raises OSError."""
        return sorted(
            path for path in self._allowed.iterdir() if path.suffix == ".pub" and NAME.fullmatch(path.stem) is not None
        )
