"""The camera as an attacker: nothing it sends makes us read another file, ask another host, or use another protocol."""

from __future__ import annotations

import http.server
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.streamer.clips import write_clip
from vedette.streamer.config.schema import SCHEMES, CameraSection
from vedette.streamer.errors import SourceError, SourceRefused
from vedette.streamer.sources import EndOfStream, Want, open_source
from vedette.streamer.sources.handshake import ask_http

WANT = Want(open_timeout_s=5.0, read_timeout_s=5.0)
Page = tuple[str, bytes] | str


class Camera(http.server.ThreadingHTTPServer):
    """A web server with pages (type and body, or where it redirects to) that writes down what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, str | None]] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def url(self, path: str = "", user: str = "") -> str:
        """Where a page is."""
        return f"http://{user}127.0.0.1:{self.server_port}{path}"

    def end(self) -> None:
        """Stop."""
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Camera

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        page = self.server.pages.get(self.path, ("text/plain", b""))
        self.send_response(302 if isinstance(page, str) else 200)
        if isinstance(page, str):
            self.send_header("Location", page)
        kind, body = ("text/plain", b"") if isinstance(page, str) else page
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # the reader has seen enough

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture
def camera() -> Iterator[Camera]:
    """The attacker."""
    made = Camera()
    yield made
    made.end()


@pytest.fixture
def inner() -> Iterator[Camera]:
    """A web server of our own network that the attacker cannot reach, but we can."""
    made = Camera()
    yield made
    made.end()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of ours that the attacker must not see."""
    return write_clip(tmp_path_factory.mktemp("private") / "clip.mp4", count=10)


def pictures(source: str) -> int:
    """How many pictures a source gives; 0 when it cannot be opened."""
    try:
        reader = open_source(source, WANT)
    except SourceError:
        return 0
    count = 0
    try:
        while count < 5:
            reader.grab()
            count += 1
    except (SourceError, EndOfStream):
        return count
    finally:
        reader.close()
    return count


def playlist(part: str) -> bytes:
    """An HLS playlist of one part."""
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2,\n{part}\n#EXT-X-ENDLIST\n".encode()


def test_what_is_honest_still_plays(camera: Camera, clip: Path) -> None:
    """The closed doors are not simply all doors: a file, a redirect on the same host and a named playlist work."""
    camera.pages |= {
        "/clip.mp4": ("video/mp4", clip.read_bytes()),
        "/moved": "/clip.mp4",
        "/live.m3u8": ("application/vnd.apple.mpegurl", playlist("clip.mp4")),
    }
    assert [pictures(camera.url(path)) for path in ("/clip.mp4", "/moved", "/live.m3u8")] == [5, 5, 5]
    assert pictures(str(clip)) == pictures(f"file://{clip}") == 5


@pytest.mark.parametrize(
    "how", ["file://{}", "file:{}", "{}", "concat:{}|{}", "subfile,,start,0,end,0,,:{}", "async:file:{}"]
)
@pytest.mark.parametrize("page", ["/live.m3u8", "/stream"])
def test_a_playlist_reads_no_file_of_ours(camera: Camera, clip: Path, how: str, page: str) -> None:
    """Neither a playlist that was asked for nor one that came instead of a video."""
    camera.pages[page] = ("application/vnd.apple.mpegurl", playlist(how.format(clip, clip)))
    assert pictures(camera.url(page)) == 0


@pytest.mark.parametrize("kind", ["application/vnd.apple.mpegurl", "text/plain", "video/mp4", "application/dash+xml"])
@pytest.mark.parametrize("form", ["hls", "concat", "dash", "sdp"])
def test_what_should_be_a_video_asks_no_other_host(
    camera: Camera, inner: Camera, clip: Path, kind: str, form: str
) -> None:
    """A camera that sends a playlist instead of pictures makes us ask nobody."""
    inner.pages["/clip.mp4"] = ("video/mp4", clip.read_bytes())
    there = inner.url("/clip.mp4")
    body = {
        "hls": playlist(there),
        "concat": f"ffconcat version 1.0\nfile '{there}'\n".encode(),
        "dash": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><BaseURL>{there}</BaseURL></MPD>'.encode(),
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    }[form]
    camera.pages["/stream"] = (kind, body)
    assert pictures(camera.url("/stream")) == 0
    assert inner.asked == []


@pytest.mark.parametrize("lead", ["host", "port", "scheme", "file", "rtsp", "name", "user", "loop", "odd"])
def test_a_redirect_leads_nowhere_else(camera: Camera, inner: Camera, clip: Path, lead: str) -> None:
    """Another host, port, protocol or user is refused with a sentence; our password goes with none of them."""
    inner.pages["/clip.mp4"] = ("video/mp4", clip.read_bytes())
    camera.pages["/go"] = {
        "host": f"http://127.0.0.2:{inner.server_port}/clip.mp4",
        "port": inner.url("/clip.mp4"),
        "scheme": f"ftp://127.0.0.1:{camera.server_port}/clip.mp4",
        "file": f"file://{clip}",
        "rtsp": "rtsp://127.0.0.1/x",
        "name": f"http://localhost:{inner.server_port}/clip.mp4",
        "user": f"http://u:p@127.0.0.1:{camera.server_port}/clip.mp4",
        "loop": "/go",
        "odd": "http://127.0.0.1:99999999/",
    }[lead]
    with pytest.raises(SourceError) as caught:
        open_source(camera.url("/go", user="me:hunter2@"), WANT)
    assert isinstance(caught.value, SourceRefused) == (lead != "loop")
    assert "hunter2" not in str(caught.value)
    assert inner.asked == []


def test_a_camera_that_redirects_only_the_decoder_is_not_followed(camera: Camera, inner: Camera, clip: Path) -> None:
    """It answers our own question well and FFmpeg's with a redirect: FFmpeg does not go either (8 and newer)."""
    import cv2

    if "avformat:                  YES (6" not in cv2.getBuildInformation():
        pytest.skip("this OpenCV's FFmpeg is older than 8 and knows no max_redirects")
    inner.pages["/clip.mp4"] = ("video/mp4", clip.read_bytes())
    ask = ask_http(camera.url("/go"), 5)
    camera.pages["/go"] = inner.url("/clip.mp4")
    from vedette.streamer.sources import http as kind

    assert ask == camera.url("/go")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "ask_http", lambda url, _timeout_s: url)
        assert pictures(camera.url("/go")) == 0
    assert inner.asked == []


def test_an_https_camera_is_not_led_to_http() -> None:
    """A redirect never takes encryption away."""
    from urllib.parse import urlsplit

    from vedette.streamer.sources.handshake import _next_address

    parts = urlsplit("https://u:p@cam/a")
    assert _next_address(parts, "/b?x=1", "cam") == "https://u:p@cam/b?x=1"
    with pytest.raises(SourceRefused):
        _next_address(parts, "http://cam/b", "cam")


@pytest.mark.parametrize(
    "body",
    [
        b"ffconcat version 1.0\nfile 'clip.mp4'\n",
        playlist("clip.mp4"),
        playlist("http://127.0.0.1:9/x"),
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ],
    ids=["concat", "hls", "hls-http", "sdp"],
)
@pytest.mark.parametrize("name", ["innocent.avi", "innocent.mp4", "list.m3u8", "list.ffconcat"])
def test_a_file_leads_to_no_other_file(clip: Path, body: bytes, name: str) -> None:
    """Whatever a file is called: one that is a list shows nothing of the video beside it."""
    (clip.parent / name).write_bytes(body)
    assert pictures(str(clip.parent / name)) == 0


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    """A pipe would wait for ever, a folder and a device are no videos; /proc files are empty. All are said at once."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as link:
        link.bind(str(tmp_path / "link"))
        for path in (tmp_path / "pipe", tmp_path / "link", tmp_path, Path("/dev/zero"), Path("/proc/self/environ")):
            with pytest.raises(SourceRefused):
                open_source(str(path), WANT)
            with pytest.raises(SourceRefused):
                open_source(f"file://{path}", WANT)


@pytest.mark.parametrize(
    "source",
    [
        "concat:/etc/passwd|/etc/group",
        "subfile,,start,0,end,0,,:/etc/passwd",
        "file:/etc/passwd",
        "exec:id",
        "pipe:0",
        "data:video/mp4;base64,AAAA",
        "ftp://host/x",
        "smb://host/x",
        "gopher://host/x",
        "tcp://127.0.0.1:22",
        "udp://@:1234",
        "srt://host:1",
        "lavfi:testsrc",
        "hls+file:///etc/passwd",
        "crypto+http://x/",
        "FILE:///etc/passwd",
        "javascript:alert(1)",
        "rtsp:///no-host",
        "http://",
    ],
)
def test_only_known_schemes_are_taken(source: str) -> None:
    """An allow-list, not a list of what is bad; and what slips past the configuration opens nothing either."""
    try:
        CameraSection(source=source)
    except ValueError:
        refused = True
    else:
        refused = False
    assert refused or "://" not in source
    assert set(SCHEMES) == {"rtsp", "rtsps", "http", "https", "file", "gst"}
    with pytest.raises(SourceError):
        open_source(source, Want(open_timeout_s=0.5, read_timeout_s=0.5))


def test_an_rtsp_redirect_is_not_followed() -> None:
    """A DESCRIBE that is answered with another address is refused with a sentence."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"RTSP/1.0 302 Moved\r\nCSeq: 1\r\nLocation: rtsp://10.0.0.1/x\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(SourceRefused, match="leads elsewhere"):
            open_source(f"rtsp://127.0.0.1:{port}/live", WANT)
        thread.join()
