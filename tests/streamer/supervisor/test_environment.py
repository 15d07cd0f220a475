"""Faults of this machine: each is one line with its place in the file, all at once."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from vedette.streamer.config import Loaded, load_config
from vedette.streamer.supervisor.environment import environment_faults, local_path, store_faults, warnings


def loaded(folder: Path, **keys: str) -> Loaded:
    """A configuration of one camera; keys: publish, replay, listen, store, source."""
    values = {"publish": "tcp://127.0.0.1:0", "replay": "tcp://127.0.0.1:1", "store": str(folder / "store")} | keys
    text = f"""
version: 1
cameras:
  dock: {{source: "{values.get("source", "/dev/video0")}"}}
alerts:
  publish: "{values["publish"]}"
  replay: "{values["replay"]}"
  store: "{values["store"]}"
http: {{listen: {values.get("listen", "null")}}}
"""
    path = folder / "c.yaml"
    path.write_text(text)
    return load_config(path)


@pytest.fixture
def taken() -> int:
    """A port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_every_fault_is_reported_at_once_with_its_line(tmp_path: Path, taken: int) -> None:
    """Two ports in use and a store that is a file: three lines."""
    (tmp_path / "store").write_text("not a folder")
    faults = environment_faults(
        loaded(tmp_path, publish=f"tcp://127.0.0.1:{taken}", replay="tcp://127.0.0.1:0", listen=f"127.0.0.1:{taken}")
    )
    assert [fault.removeprefix(f"{tmp_path}/").partition(": ")[0] for fault in faults] == [
        "c.yaml:8",
        "c.yaml:6",
        "c.yaml:9",
    ]
    assert "alerts.store: cannot be made" in faults[0] or "alerts.store: needs a folder" in faults[0]
    assert (
        f"alerts.publish: the port is in use by another program; stop it or choose another port, got 'tcp://127.0.0.1:{taken}'"
        in faults[1]
    )
    assert f"http.listen: needs another address than alerts.publish, got '127.0.0.1:{taken}'" in faults[2]


def test_our_own_ports_are_not_in_use(tmp_path: Path, taken: int) -> None:
    """At a reload the addresses that the daemon already holds are its own."""
    config = loaded(tmp_path, publish=f"tcp://127.0.0.1:{taken}", replay="tcp://127.0.0.1:0")
    assert len(environment_faults(config)) == 1
    assert environment_faults(config, running=config.config) == []
    assert environment_faults(config, ports=False) == []


def test_a_port_that_is_about_to_be_free_is_waited_for(tmp_path: Path) -> None:
    """The port of a predecessor that was just killed gets patience."""
    server = socket.create_server(("127.0.0.1", 0))
    config = loaded(tmp_path, publish=f"tcp://127.0.0.1:{server.getsockname()[1]}", replay="tcp://127.0.0.1:0")
    assert environment_faults(config, patience_s=0.2) != []
    server.close()
    assert environment_faults(config, patience_s=5.0) == []


@pytest.mark.parametrize(
    ("address", "rule"),
    [
        ("tcp://192.0.2.1:5556", "needs an address of this machine"),
        ("ipc:///nonexistent/folder/p", "needs a folder that can be written, /nonexistent/folder is none"),
    ],
)
def test_addresses_that_cannot_be_bound_say_why(tmp_path: Path, address: str, rule: str) -> None:
    """An address of another machine and a missing folder are told apart from a port in use."""
    (fault,) = environment_faults(loaded(tmp_path, publish=address, replay="tcp://127.0.0.1:0"))
    assert f"alerts.publish: {rule}" in fault


def test_a_store_that_can_be_made_is_no_fault_and_is_not_made(tmp_path: Path) -> None:
    """Checking leaves no trace."""
    assert store_faults(loaded(tmp_path, store=str(tmp_path / "a" / "b"))) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml"]


def test_a_store_on_a_file_system_that_takes_nothing_is_a_fault(tmp_path: Path) -> None:
    """Permission bits do not tell it (root may write everywhere); trying does."""
    (fault,) = store_faults(loaded(tmp_path, store="/proc/vedette"))
    assert "c.yaml:8: alerts.store: cannot be made" in fault
    assert "got '/proc/vedette'" in fault


def test_gst_sources_need_a_cv2_with_gstreamer(tmp_path: Path) -> None:
    """A fault with the fix exactly where opening such a pipeline cannot work; other sources are never asked."""
    import cv2

    pipeline = "videotestsrc num-buffers=1 ! videoconvert ! appsink"
    works = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER).isOpened()
    config = loaded(tmp_path, source=f"gst: {pipeline}", replay="tcp://127.0.0.1:0", publish="ipc:///tmp/p")
    faults = environment_faults(config)
    assert len(faults) == (0 if works else 1)
    assert all("cameras.dock.source: this OpenCV was built without GStreamer; install" in fault for fault in faults)


def test_a_missing_file_is_a_warning(tmp_path: Path) -> None:
    """It may come back; the camera waits for it."""
    config = loaded(tmp_path, source=str(tmp_path / "gone.mp4"), replay="tcp://127.0.0.1:0", publish="ipc:///tmp/p")
    assert environment_faults(config) == []
    (warning,) = warnings(config)
    assert "cameras.dock.source: no such file here yet" in warning


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("file:///a%20b.mp4", "/a b.mp4"),
        ("/dev/video0", "/dev/video0"),
        ("clip.mp4", "clip.mp4"),
        ("rtsp://h/x", None),
        ("gst: filesrc location=/x", None),
    ],
)
def test_only_local_sources_have_a_path(source: str, path: str | None) -> None:
    """Paths, file:// URLs and devices are local; the rest is not."""
    found = local_path(source)
    assert (None if found is None else str(found)) == path
