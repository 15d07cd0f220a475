"""Every kind of source: what it takes, what it says when it cannot be read, and that it never leads elsewhere."""

from __future__ import annotations

import base64
import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.streamer.clips import moving, write_clip, write_mjpeg, write_raw_avi
from tests.streamer.rtsp import free_port
from vedette.streamer.config.schema import SCHEMES
from vedette.streamer.errors import ConfigError, SourceError, SourceRefused
from vedette.streamer.sources import KINDS, EndOfStream, Reader, Want, kind_of, open_source, problem_of
from vedette.streamer.sources.handshake import authorization, describe

QUICK = Want(open_timeout_s=3.0, read_timeout_s=3.0)


def read_all(reader: Reader) -> list[tuple[float, tuple[int, ...]]]:
    """Timestamp and shape of every picture to the end."""
    seen = []
    with contextlib.closing(reader), contextlib.suppress(EndOfStream):
        while True:
            seen.append((reader.grab(), reader.retrieve().shape))
    return seen


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("rtsp://host/a", "rtsp"),
        ("RTSPS://host/a", "rtsp"),
        ("http://host/a.mjpg", "http"),
        ("https://host/a", "http"),
        ("gst:videotestsrc ! appsink", "gst"),
        ("/dev/video0", "device"),
        ("/dev/video/x", "file"),
        ("file:///a/b.mp4", "file"),
        ("clips/b.mp4", "file"),
    ],
)
def test_every_source_has_its_kind(source: str, name: str) -> None:
    """The table picks one row by the look of the source."""
    assert kind_of(source) is KINDS[name]


def test_the_table_covers_every_scheme_of_the_configuration() -> None:
    """Whatever `vedette check` accepts some kind takes by name, files by default."""
    for scheme in SCHEMES:
        assert kind_of("gst:x" if scheme == "gst" else f"{scheme}://host/x") in KINDS.values()


def test_addresses_are_probed_where_the_source_is() -> None:
    """Host and port, with the scheme's default."""
    assert kind_of("rtsp://u:p@cam/x").address("rtsp://u:p@cam/x") == ("cam", 554)
    assert kind_of("http://cam:81/").address("http://cam:81/") == ("cam", 81)
    assert kind_of("https://[::1]/x").address("https://[::1]/x") == ("::1", 443)
    assert kind_of("a.mp4").address("a.mp4") is None


@pytest.mark.parametrize("name", ["a.avi", "a.mp4"])
@pytest.mark.parametrize("as_url", [False, True])
def test_a_file_is_read_to_its_end(tmp_path: Path, name: str, *, as_url: bool) -> None:
    """Every picture, its size, timestamps at the file's rate, then the end; a file:// URL is the same."""
    path = write_clip(tmp_path / name, count=20, fps=10)
    seen = read_all(open_source(path.as_uri() if as_url else str(path), QUICK))
    assert [shape for _, shape in seen] == [(120, 160, 3)] * 20
    assert np.diff([stamp for stamp, _ in seen]) == pytest.approx([0.1] * 19, abs=0.01)


def test_names_with_spaces_and_signs_are_names(tmp_path: Path) -> None:
    """A path is never taken for an option, a pattern or a protocol."""
    for name in ("a b%03d.avi", "é#?.avi", "concat:x.avi", "-i.avi"):
        path = write_clip(tmp_path / "plain.avi", count=3).rename(tmp_path / name)
        assert len(read_all(open_source(str(path), QUICK))) == 3


def test_a_truncated_file_gives_what_it_has(tmp_path: Path) -> None:
    """Half a motion-JPEG file: the pictures that are there, then the end, no error and no hang."""
    path = write_clip(tmp_path / "a.avi", count=30)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 5 <= len(read_all(open_source(str(path), QUICK))) < 30


def test_a_file_whose_pictures_change_size_is_read_on(tmp_path: Path) -> None:
    """Pictures of three sizes in one stream: all are read, every one at one size, none is lost."""
    path = write_mjpeg(tmp_path / "a.mjpeg", [(120, 160), (240, 320), (60, 80)])
    assert [shape for _, shape in read_all(open_source(str(path), QUICK))] == [(120, 160, 3)] * 15


def refused_files(folder: Path) -> dict[str, Path]:
    """Files that hold no video, by what is wrong."""
    whole = write_clip(folder / "whole.mp4").read_bytes()
    files = {
        "empty": b"",
        "text": b"hello, this is no video\n" * 50,
        "zeros": bytes(100_000),
        "noise": np.random.default_rng(1).bytes(100_000),
        "mp4 without its end": whole[: len(whole) // 2],
        "RIFF only": b"RIFF\x00\x00\x00\x00AVI ",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in files}


def test_files_without_video_are_refused_by_name(tmp_path: Path) -> None:
    """Zero-length, text, noise, a truncated mp4: one clear sentence that names the file; retried slowly."""
    for path in refused_files(tmp_path).values():
        with pytest.raises(SourceRefused, match=r"is empty|not a video") as caught:
            open_source(str(path), QUICK)
        assert str(path) in str(caught.value)


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    """A folder is refused; a missing file may still come and is an ordinary error."""
    with pytest.raises(SourceRefused, match="is not a file"):
        open_source(str(tmp_path), QUICK)
    with pytest.raises(SourceError, match="No such file") as caught:
        open_source(str(tmp_path / "missing.mp4"), QUICK)
    assert not isinstance(caught.value, SourceRefused)


def read_forever(reader: Reader) -> None:
    """Until the source says no."""
    for n in range(100):
        reader.grab()
        assert reader.retrieve().shape == (120, 160, 3), n


@contextlib.contextmanager
def web_server(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[int]:
    """A real web server; its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Quiet(http.server.BaseHTTPRequestHandler):
    """Counts its requests and says nothing."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_a_playlist_never_leads_to_another_host(tmp_path: Path) -> None:
    """A file that names a URL is refused, and nobody is asked for that URL."""

    class Target(Quiet):
        asked: list[str] = []  # noqa: RUF012 -- read after the server is gone

    with web_server(Target) as port:
        for name, text in (
            ("a.m3u8", f"#EXTM3U\n#EXTINF:5,\nhttp://127.0.0.1:{port}/x.ts\n#EXT-X-ENDLIST\n"),
            ("a.ffconcat", f"ffconcat version 1.0\nfile http://127.0.0.1:{port}/x.ts\n"),
        ):
            (tmp_path / name).write_text(text)
            with pytest.raises(SourceRefused):
                open_source(str(tmp_path / name), QUICK)
    assert Target.asked == []


class Mjpeg(Quiet):
    """A network camera: motion JPEG behind basic authentication."""

    asked: list[str] = []  # noqa: RUF012 -- not looked at

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != "Basic " + base64.b64encode(b"bob:se:cret").decode():
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has seen enough
            for n in range(40):
                jpeg = cv2.imencode(".jpg", moving(n))[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")


def test_an_http_camera_is_read() -> None:
    """Motion JPEG over HTTP with a password that needs escaping; the end of a live source is an error."""
    with web_server(Mjpeg) as port:
        reader = open_source(f"http://bob:se%3Acret@127.0.0.1:{port}/video.mjpg", QUICK)
        with contextlib.closing(reader), pytest.raises(SourceError, match="stopped delivering"):
            read_forever(reader)


def test_http_refusals_are_told_apart() -> None:
    """Wrong password, no password, no such page, nobody there: each its own sentence, none with a secret."""
    with web_server(Mjpeg) as port:
        with pytest.raises(SourceRefused, match="wrong user or password") as wrong:
            open_source(f"http://bob:wrongword@127.0.0.1:{port}/", QUICK)
        assert "wrongword" not in str(wrong.value)
        with pytest.raises(SourceRefused, match="asks for a user and password"):
            open_source(f"http://127.0.0.1:{port}/", QUICK)

    class Absent(Quiet):
        asked: list[str] = []  # noqa: RUF012 -- not looked at

    with web_server(Absent) as port, pytest.raises(SourceError, match="no such stream"):
        open_source(f"http://127.0.0.1:{port}/", QUICK)
    with pytest.raises(SourceError, match="cannot be reached"):
        open_source(f"http://127.0.0.1:{free_port()}/", QUICK)


def test_a_digest_answer_is_the_standards_own() -> None:
    """RFC 2069's example with its erratum 749."""
    from urllib.parse import urlsplit

    challenge = (
        'Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
        'opaque="5ccc069c403ebaf9f0171e9517f40e41"'
    )
    parts = urlsplit("http://Mufasa:CircleOfLife@host.com/")
    answer = authorization([challenge], "GET", "/dir/index.html", parts, "x")
    assert 'response="1949323746fe6a43ef61f9606e7febea"' in answer
    assert 'opaque="5ccc069c403ebaf9f0171e9517f40e41"' in answer


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n\r\n", b"RTSP/1.0\r\n\r\n", b"\xff" * 200_000])
def test_a_server_that_does_not_speak_rtsp_is_an_error(answer: bytes) -> None:
    """Whatever comes back is judged within the time-out, never believed."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(SourceError, match=r"does not speak RTSP|broke the connection"):
            describe(f"rtsp://127.0.0.1:{server.getsockname()[1]}/x", 5.0)
        thread.join()


def test_a_missing_device_says_so() -> None:
    """No camera plugged in: one sentence."""
    with pytest.raises(SourceError, match="no such device"):
        open_source("/dev/video99", QUICK)


def test_a_pipeline_without_gstreamer_names_the_fix() -> None:
    """`gst:` where OpenCV lacks GStreamer is a configuration error with what to install."""
    source = "gst:videotestsrc ! appsink"
    problem = problem_of(source)
    if problem is None:
        pytest.skip("this OpenCV has GStreamer")
    assert "python3-opencv" in problem
    with pytest.raises(ConfigError, match="built without GStreamer"):
        open_source(source, QUICK)
    assert problem_of("rtsp://host/x") is None


@pytest.mark.parametrize("bottom_up", [True, False])
@pytest.mark.parametrize(("height", "width"), [(48, 48), (31, 45), (240, 320)])
def test_uncompressed_rows_are_the_right_way_up(tmp_path: Path, height: int, width: int, *, bottom_up: bool) -> None:
    """Raw BGR in an AVI, either order of rows, padded or not: the very pixels that were stored."""
    picture = np.random.default_rng(2).integers(0, 256, (height, width, 3), np.uint8)
    path = write_raw_avi(tmp_path / "a.avi", picture, bottom_up=bottom_up)
    reader = open_source(str(path), QUICK)
    with contextlib.closing(reader):
        reader.grab()
        assert (reader.retrieve() == picture).all()
