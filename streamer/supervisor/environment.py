"""Faults that only this machine can show: a port in use, a store that cannot be written, a cv2 without GStreamer.

A camera that does not answer and a file that is missing are no faults of the configuration: they may come back.
"""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vedette.streamer.address import is_loopback_host
from vedette.streamer.config import Config, Loaded
from vedette.streamer.config.yamlfile import Key
from vedette.streamer.endpoint import is_loopback
from vedette.streamer.errors import ConfigError
from vedette.streamer.keys.folder import KeyFolder
from vedette.streamer.sources import problem_of

Address = tuple[str, int]


def environment_faults(
    loaded: Loaded, *, running: Config | None = None, ports: bool = True, patience_s: float = 0.0
) -> list[str]:
    """One line for each fault of this machine with this configuration; empty when it can run.

    running: the configuration this daemon already runs; its addresses are ours and not "in use". ports: whether to
    try the addresses. patience_s: how long an address may stay in use: a killed predecessor takes a moment to go.
    """
    faults = store_faults(loaded) + _source_faults(loaded) + _key_faults(loaded)
    if ports:
        faults += _address_faults(loaded, running, time.monotonic() + patience_s)
    return faults


def store_faults(loaded: Loaded) -> list[str]:
    """Whether the alert store is a folder that can be read and written, or could be made."""
    store = Path(loaded.config.alerts.store)
    probe = store
    while not probe.exists() and probe != probe.parent:
        probe = probe.parent
    try:
        if not probe.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "is not a folder", str(probe))
        if probe == store:
            list(probe.iterdir())
        # asking the kernel beats reading permission bits: root, read-only mounts and quotas all answer truthfully
        with tempfile.TemporaryDirectory(prefix=".vedette-check-", dir=probe):
            pass
        for database in probe.glob("*.db") if probe == store else ():
            with database.open("r+b"):
                pass
    except OSError as error:
        what = "needs a folder that can be read and written" if probe == store else "cannot be made"
        return [loaded.fault(("alerts", "store"), f"{what} ({error.strerror}: {error.filename or probe})", str(store))]
    return []


def warnings(loaded: Loaded) -> list[str]:
    """What may well be meant, but a person should know: files that are not there yet, addresses open to others."""
    found = []
    for name, camera in loaded.config.cameras.items():
        path = local_path(camera.source)
        if path is not None and not path.exists():
            found.append(loaded.fault(("cameras", name, "source"), "no such file here yet", camera.source))
    return found + _open_doors(loaded)


def _open_doors(loaded: Loaded) -> list[str]:
    """What is legal and unsafe: a tcp address without keys, a password in the file, a scope that names nobody."""
    config = loaded.config
    found = [
        loaded.fault(key, "holds a secret; better ${ENV} or !file, for this file is read by more people", "***")
        for key in loaded.source.literals
    ]
    for name in ("publish", "replay"):
        address = getattr(config.alerts, name)
        if config.alerts.curve is None and not is_loopback(address):
            found.append(loaded.fault(("alerts", name), "others can listen without a key; set alerts.curve", address))
    for i, sink in enumerate(config.alerts.sinks):
        url = getattr(sink, "url", "")
        if url.startswith("http://") and not is_loopback_host(urlsplit(url).hostname or ""):
            found.append(loaded.fault(("alerts", "sinks", i, "url"), "is not encrypted; better https://", url))
    for i, row in enumerate(config.http.tokens):
        strangers = [name for name in row.cameras or () if name not in config.cameras]
        if strangers:
            found.append(loaded.fault(("http", "tokens", i, "cameras"), "no such camera", ", ".join(strangers)))
    return found


def local_path(source: str) -> Path | None:
    """The file or device a source names, None when it is not local."""
    if source.startswith("gst:"):
        return None
    if source.startswith("file://"):
        return Path(unquote(urlsplit(source).path))
    return None if "://" in source else Path(source)


def _source_faults(loaded: Loaded) -> list[str]:
    """Sources that this installation can never open, whatever the world does."""
    found = []
    for name, camera in loaded.config.cameras.items():
        problem = problem_of(camera.source)
        if problem:
            found.append(loaded.fault(("cameras", name, "source"), problem, camera.source))
    return found


def _key_faults(loaded: Loaded) -> list[str]:
    """The site's own keys, when it has some: there, ours, and nobody else's to read."""
    curve = loaded.config.alerts.curve
    if curve is None:
        return []
    try:
        KeyFolder(Path(curve.keys)).server()
    except ConfigError as error:
        return [loaded.fault(("alerts", "curve", "keys"), str(error), curve.keys)]
    return []


def addresses(config: Config) -> dict[Key, str]:
    """Every address the daemon binds, by its key."""
    found: dict[Key, str] = {
        ("alerts", "publish"): config.alerts.publish,
        ("alerts", "replay"): config.alerts.replay,
    }
    if config.http.listen is not None:
        found["http", "listen"] = f"tcp://{config.http.listen}"
    return found


def _address_faults(loaded: Loaded, running: Config | None, deadline_s: float) -> list[str]:
    ours = set(addresses(running).values()) if running else set()
    faults = []
    taken: dict[str, Key] = {}
    for key, address in addresses(loaded.config).items():
        shown = loaded.config.http.listen if key == ("http", "listen") else address
        port = urlsplit(address).port if address.startswith("tcp://") else None
        if address in taken and port != 0:
            other = ".".join(str(part) for part in taken[address])
            faults.append(loaded.fault(key, f"needs another address than {other}", shown))
            continue
        taken[address] = key
        problem = None if address in ours else _problem_with(address, deadline_s)
        if problem:
            faults.append(loaded.fault(key, problem, shown))
    return faults


def _problem_with(address: str, deadline_s: float) -> str | None:
    if address.startswith("ipc://"):
        folder = Path(address.removeprefix("ipc://")).parent
        writable = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
        return None if writable else f"needs a folder that can be written, {folder} is none"
    while (problem := _bind_problem(address)) is not None:
        if problem.errno != errno.EADDRINUSE or time.monotonic() >= deadline_s:
            return _words(problem)
        time.sleep(0.1)
    return None


def _bind_problem(address: str) -> OSError | None:
    parts = urlsplit(address)
    host = parts.hostname or ""
    try:
        known = socket.getaddrinfo(
            None if host == "*" else host, parts.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        return OSError(errno.EADDRNOTAVAIL, str(error))
    family, kind, protocol, _, where = known[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as ZeroMQ and uvicorn do
        try:
            probe.bind(where)
            probe.listen(1)
        except OSError as error:
            return error
    return None


def _words(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use by another program; stop it or choose another port"
    if error.errno == errno.EADDRNOTAVAIL:
        return "needs an address of this machine"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "ports below 1024 need a privilege; choose a higher one"
    return f"cannot be bound ({error.strerror})"
