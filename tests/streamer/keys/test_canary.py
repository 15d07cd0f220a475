"""A canary is put everywhere a secret can stand, and the real daemon's targets all fail: it never comes out.

One daemon, started with an umask that forbids nothing; what it logs, publishes, serves, stores and shows to other users of
the machine is collected from outside.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from tests.streamer.clips import write_clip

pytestmark = pytest.mark.slow

#: Part of every secret below, so that half a secret is found too; it stands in no other word of the configuration.
CANARY = "kanarienvogel"
TOKEN = f"{CANARY}-token-0123456789abcdef"
SECRETS = {
    "DEAD_PASSWORD": f"{CANARY}-rtsp'\"$",
    "HOOK_URL": f"http://u:{CANARY}-url@127.0.0.1:@DEAD@/services/{CANARY}-path-0123456789",
    "HOOK_HEADER": f"Bearer {CANARY}-header-\u00e9\u00df",
    "HOOK_KEY": f"{CANARY}-hmac",
    "MQTT_PASSWORD": f"{CANARY}-mqtt\\",
    "HTTP_TOKEN": TOKEN,
    "QUERY_TOKEN": f"{CANARY}%2Fquery",
}


class _Refuses(http.server.BaseHTTPRequestHandler):
    """A camera that wants another password, and a webhook that repeats every word it was told."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="cam"')
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(422)
        self.end_headers()
        self.wfile.write(f"{self.headers['X-Key']} {self.headers}".encode())

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


def free_port() -> int:
    """A port nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Cage:
    """The daemon, and everything that can be seen of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "store"
        self.web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refuses)
        threading.Thread(target=self.web.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.http, self.publish, self.replay = free_port(), free_port(), free_port()
        self.path, self.log = folder / "config.yaml", folder / "log"
        self.runtime = Path(tempfile.mkdtemp(prefix="vd-"))
        self.dead = free_port()
        (folder / "key").write_text(f"{CANARY}-file-key\n")
        write_clip(folder / "clip.avi", count=15)
        self.write()
        environment = {k: v.replace("@DEAD@", str(self.dead)) for k, v in SECRETS.items()}
        self.heard: list[bytes] = []
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vedette.streamer.cli", "run", str(self.path), "--log", "debug"],
                env={**os.environ, **environment, "XDG_RUNTIME_DIR": str(self.runtime)},
                stdout=log,
                stderr=log,
                umask=0,
            )
        self._listening = threading.Event()
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def write(self, extra: str = "") -> None:
        """The configuration: secrets from the environment, from a file, and in the file itself."""
        web = self.web.server_address[1]
        self.path.write_text(
            f"""
version: 1
defaults: {{offline_after: 1}}
cameras:
  clip: {{source: '{self.folder}/clip.avi', loop: true}}
  dead: {{source: 'rtsp://viewer:${{DEAD_PASSWORD}}@127.0.0.1:{self.dead}/live?token=${{QUERY_TOKEN}}'}}
  wrong: {{source: 'http://viewer:{CANARY}-literal@127.0.0.1:{web}/video?pwd={CANARY}-q&x=1'}}
alerts:
  publish: tcp://127.0.0.1:{self.publish}
  replay: tcp://127.0.0.1:{self.replay}
  store: '{self.store}'
  sinks:
  - {{kind: webhook, name: dead, url: '${{HOOK_URL}}', headers: {{Authorization: '${{HOOK_HEADER}}'}}, secret: '${{HOOK_KEY}}'}}
  - {{kind: webhook, name: echo, url: 'http://127.0.0.1:{web}/{CANARY}-hook-0123456789', headers: {{X-Key: {CANARY}-literal-header}}, secret: !file key}}
  - {{kind: mqtt, host: 127.0.0.1, port: {self.dead}, username: me, password: '${{MQTT_PASSWORD}}'}}
http:
  listen: 127.0.0.1:{self.http}
  tokens: [{{name: all, token: '${{HTTP_TOKEN}}'}}]
{extra}"""
        )

    def _listen(self) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as client:
            client.setsockopt(zmq.LINGER, 0)
            client.connect(f"tcp://127.0.0.1:{self.publish}")
            client.subscribe("")
            while not self._listening.is_set():
                if client.poll(100):
                    self.heard += client.recv_multipart()

    def get(self, path: str) -> bytes:
        """What a path answers to the token; b"" while nobody does."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}")
        request.add_header("Authorization", f"Bearer {TOKEN}")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                body: bytes = answer.read()
                return body
        except urllib.error.HTTPError as error:
            return error.read()
        except OSError:
            return b""

    def status(self) -> dict[str, Any]:
        """The newest status.hub, {} before the first."""
        found = [raw for topic, raw in zip(self.heard[::2], self.heard[1::2], strict=False) if topic == b"status.hub"]
        return json.loads(found[-1]) if found else {}

    def until(self, condition: Callable[[], object], within_s: float = 60.0) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, f"never happened: {self.log.read_text()[-3000:]}"
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            time.sleep(0.1)

    def sinks(self) -> dict[str, dict[str, Any]]:
        """The sinks' states by name."""
        return {sink["name"]: sink for sink in self.status().get("sinks", [])}

    def children(self) -> list[psutil.Process]:
        """Every process of the daemon but the first."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def close(self) -> None:
        """End everything."""
        self.process.terminate()
        try:
            self.process.wait(15)
        finally:
            self.process.kill()
            self._listening.set()
            self._listener.join()
            self.web.shutdown()
            self.web.server_close()


@pytest.fixture(scope="module")
def cage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cage]:
    """The daemon after everything that can go wrong has gone wrong."""
    made = Cage(tmp_path_factory.mktemp("cage"))
    try:
        made.until(lambda: made.sinks().get("dead", {}).get("state") == "retrying")
        made.until(lambda: made.sinks().get("mqtt", {}).get("state") == "retrying")
        made.until(lambda: made.sinks().get("echo", {}).get("refused"))
        made.until(lambda: b"wrong user or password" in made.get("/api/v1/cameras"))
        made.write(extra=f"site: 'http://u:{CANARY}@h/ {'x' * 90} rtsp://u:{CANARY}-far@h/'\n")
        made.process.send_signal(signal.SIGHUP)
        made.until(lambda: "the configuration is wrong" in made.log.read_text())
        made.write(extra="site: another\n")
        for child in made.children():
            if "wrong" in " ".join(child.cmdline()) or child.name() == "vd-wrong":
                child.send_signal(signal.SIGABRT)
        made.process.send_signal(signal.SIGHUP)
        made.until(lambda: "hub restarts" in made.log.read_text())
        made.until(lambda: made.status().get("site") == "another")
        made.until(lambda: b"wrong user or password" in made.get("/api/v1/cameras"))
        yield made
    finally:
        made.close()


def test_logs_hold_no_secret(cage: Cage) -> None:
    """Every process's words at level debug, failures, reloads, a refused configuration and a crash among them."""
    text = cage.log.read_text()
    for word in ("wrong user or password", "was refused", "127.0.0.1", "***", "SIGABRT"):
        assert word in text
    assert CANARY not in text


def test_what_is_published_and_stored_holds_no_secret(cage: Cage) -> None:
    """Every message of every topic, and every byte of the store: alerts, cursors, database."""
    cage.until(lambda: any(topic.startswith(b"alert.dead.") for topic in cage.heard[::2]))
    assert {topic.split(b".")[0] for topic in cage.heard[::2]} >= {b"alert", b"status"}
    assert CANARY.encode() not in b"".join(cage.heard)
    files = [path for path in cage.store.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in files)
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(
    "path",
    [
        "/healthz",
        "/readyz",
        "/metrics",
        "/api/v1/processes",
        "/api/v1/cameras",
        "/api/v1/alerts",
        "/api/v1/alerts/1",
        "/x",
    ],
)
def test_what_is_served_holds_no_secret(cage: Cage, path: str) -> None:
    """Also to somebody who may ask for everything."""
    answer = cage.get(path)
    assert answer
    assert CANARY.encode() not in answer


def test_other_users_of_the_machine_see_no_secret(cage: Cage) -> None:
    """Command lines are everybody's to read: none holds a secret. Nor does a capture's environment hold another's."""
    children = cage.children()
    assert len(children) >= 5
    for process in [psutil.Process(cage.process.pid), *children]:
        with contextlib.suppress(psutil.NoSuchProcess):
            assert CANARY not in " ".join(process.cmdline())
    for process in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            assert CANARY not in str(process.environ())


def test_files_and_sockets_are_the_groups_at_most(cage: Cage) -> None:
    """Run folder 0750, its sockets 0660, pixels 0600; nothing of the store is open to others, although the umask was 0."""
    (run_dir,) = cage.runtime.glob("vedette-*")
    modes = {
        path.name: (stat.S_IFMT(path.lstat().st_mode), stat.S_IMODE(path.lstat().st_mode)) for path in run_dir.iterdir()
    }
    assert stat.S_IMODE(run_dir.stat().st_mode) == 0o750
    sockets = {name: mode for name, (kind, mode) in modes.items() if kind == stat.S_IFSOCK}
    assert {"events.sock", "telemetry.sock", "frames.sock"} <= set(sockets)
    assert set(sockets.values()) == {0o660}
    assert {mode & 0o037 for name, (kind, mode) in modes.items() if kind != stat.S_IFSOCK} == {0}
    opened = [path for path in [cage.store, *cage.store.rglob("*")] if stat.S_IMODE(path.lstat().st_mode) & 0o007]
    assert opened == []


def test_check_prints_no_secret(cage: Cage) -> None:
    """`vedette check` of this configuration warns of what stands in the file itself, and of a broken one names the
    fault, without the values."""
    environment = {**os.environ, **{k: v.replace("@DEAD@", "1") for k, v in SECRETS.items()}}
    copy = cage.folder / "copy.yaml"
    for broken, status in (("", 0), (f"site: 'http://u:{CANARY}@h/'\n", 2)):
        copy.write_text(cage.path.read_text().replace("site: another\n", broken))
        command = [sys.executable, "-m", "vedette.streamer.cli", "check", str(copy)]
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert said.returncode == status, said
        assert "site" in said.stderr if broken else "holds a secret" in said.stderr
        assert CANARY not in said.stdout + said.stderr
