"""HTTP tokens on a real hub: every route, every role, every foreign camera; and doors that do not open by accident."""

from __future__ import annotations

import hmac
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.streamer.hub.hubs import JPEG, hub_with, until
from vedette.streamer.bench._hub import HubProcess, numbered_event
from vedette.streamer.cli import main
from vedette.streamer.config import load_config
from vedette.streamer.errors import ConfigError
from vedette.streamer.hub.http import app, tokens
from vedette.streamer.hub.http.server import bind_tcp
from vedette.streamer.supervisor.environment import warnings
from vedette.streamer.telemetry import TelemetryLink

CAMERAS = ("north", "south", "vault")
#: role -> its token and the cameras it sees
ROLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "everything": ("everything-" + "a" * 32, CAMERAS),
    "dock": ("dock-only-" + "b" * 32, ("north",)),
    "two": ("two-cameras-" + "c" * 32, ("north", "south")),
}
#: One client for all: making one costs more than asking.
WEB = httpx.Client(timeout=5, trust_env=False, verify=False)
ROUTE = re.compile(r'"(/[a-z0-9/{}:_]+)":|Route\("(/[a-z]+)"')


def rows() -> list[dict[str, Any]]:
    """``http.tokens``: one token in clear, as the loader hands it on, the others hashed."""
    return [
        {"name": "everything", "token": ROLES["everything"][0]},
        *(
            {"name": role, "token": tokens.hash_of(ROLES[role][0]), "cameras": list(ROLES[role][1])}
            for role in ("dock", "two")
        ),
    ]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub that asks for tokens; two alerts with pictures a camera (seq 1 to 6), its processes and cameras known."""
    events = [(numbered_event(number, camera=CAMERAS[number % 3]), JPEG) for number in range(6)]
    table = [
        {"role": "hub", "name": "hub", "camera": None, "state": "serving", "last_error": "vault is a secret"},
        *({"role": "capture", "name": c, "camera": c, "state": "streaming", "last_error": None} for c in CAMERAS),
    ]
    with hub_with(tmp_path_factory.mktemp("tokens") / "store", events, tokens=rows()) as running:
        with TelemetryLink(running.telemetry) as told:
            until(lambda: told.send("process", {"processes": table}))
            until(lambda: len(ask(running, "/api/v1/processes", "everything").json()["processes"]) == 4)
        yield running


def ask(hub: HubProcess, path: str, role: str | None, **options: Any) -> httpx.Response:
    """A GET with a role's token."""
    headers = {} if role is None else {"Authorization": f"Bearer {ROLES[role][0]}"}
    return WEB.get(f"http://{hub.config['http']['listen']}{path}", headers=headers, **options)


def routes() -> list[str]:
    """Every path of the server, from the source: a route that is added is tested, or this file must be told of it."""
    return sorted(a or b for a, b in ROUTE.findall(Path(app.__file__).read_text()))


def test_the_test_knows_every_route() -> None:
    """What follows walks them all."""
    known = {"/healthz", "/readyz", "/metrics", "/api/v1/processes", "/api/v1/cameras", "/api/v1/alerts"}
    known |= {"/api/v1/alerts/{seq:int}", "/api/v1/alerts/{seq:int}/snapshot", "/api/v1/events"}
    assert known <= set(routes())


@pytest.mark.parametrize("path", routes())
@pytest.mark.parametrize("header", [None, "Bearer", "Bearer wrong", "Basic %s", "Bearer %s-", "Bearer \u00e9", "%s"])
def test_nobody_without_a_token_is_told_anything(hub: HubProcess, path: str, header: str | None) -> None:
    """401 and how to ask, on every route but /healthz, for no token, a wrong one, and a right one in the wrong place."""
    url = f"http://{hub.config['http']['listen']}{path.replace('{seq:int}', '1')}"
    sent = {} if header is None else {"Authorization": (header.replace("%s", ROLES["everything"][0])).encode("utf-8")}
    answer = WEB.get(url, headers=sent, params={"token": ROLES["everything"][0]})
    if path == "/healthz":
        assert answer.status_code == 200
    else:
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "north" not in answer.text


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("path", routes())
def test_no_role_hears_of_a_camera_it_does_not_see(hub: HubProcess, role: str, path: str) -> None:
    """Whatever is asked in whatever way, no answer names a foreign camera or shows its alerts or pictures."""
    foreign = [name for name in CAMERAS if name not in ROLES[role][1]]
    asked = [path.replace("{seq:int}", str(seq)) for seq in range(1, 7)] if "{seq" in path else [path]
    asked += [f"{path}?camera={name}" for name in CAMERAS if "{seq" not in path]
    for url in asked:
        if path == "/api/v1/events":
            told = live(hub, url, role)
        else:
            answer = ask(hub, url, role)
            told = "" if "camera=" in url and answer.status_code == 403 else answer.text
        assert not [name for name in foreign if name in told], (url, told)


def live(hub: HubProcess, url: str, role: str) -> str:
    """What the live stream says from the beginning until all seen alerts have come; "" when it is refused."""
    sees = [c for c in ROLES[role][1] if "camera=" not in url or url.endswith(f"={c}")]
    address = f"http://{hub.config['http']['listen']}{url}"
    headers = {"Authorization": f"Bearer {ROLES[role][0]}", "Last-Event-ID": "0"}
    lines: list[str] = []
    with WEB.stream("GET", address, headers=headers) as answer:
        if answer.status_code == 403:
            return ""
        for line in answer.iter_lines():
            lines.append(line)
            if sum(text.startswith("id:") for text in lines) == 2 * len(sees) and line == "":
                break
    return "\n".join(lines)


def test_a_scope_shows_what_it_holds(hub: HubProcess) -> None:
    """A role gets its own cameras' alerts, pictures, processes; a foreign alert does not exist for it."""
    page = ask(hub, "/api/v1/alerts", "two").json()
    assert [alert["camera"] for alert in page["alerts"]] == ["north", "south", "north", "south"]
    assert ask(hub, "/api/v1/alerts?limit=3", "two").json()["through"] == 4
    assert [a["seq"] for a in ask(hub, "/api/v1/alerts?camera=south", "two").json()["alerts"]] == [2, 5]
    assert ask(hub, "/api/v1/alerts?camera=vault", "two").status_code == 403
    assert (ask(hub, "/api/v1/alerts/1", "dock").status_code, ask(hub, "/api/v1/alerts/2", "dock").status_code) == (
        200,
        404,
    )
    assert ask(hub, "/api/v1/alerts/1/snapshot", "dock").content == JPEG
    assert ask(hub, "/api/v1/alerts/3/snapshot", "dock").status_code == 404
    assert [row["name"] for row in ask(hub, "/api/v1/cameras", "dock").json()["cameras"]] == ["north"]
    processes = {row["name"]: row for row in ask(hub, "/api/v1/processes", "dock").json()["processes"]}
    assert set(processes) == {"hub", "north"}
    assert processes["hub"]["last_error"] is None
    assert ask(hub, "/metrics", "two").status_code == 403
    assert "vedette_alerts_total" in ask(hub, "/metrics", "everything").text
    assert len(ask(hub, "/api/v1/alerts", "everything").json()["alerts"]) == 6


def test_tokens_are_compared_in_constant_time_and_every_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request compares with every row by hmac.compare_digest, also after one has matched."""
    compared: list[bytes] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append(a)
        return hmac.compare_digest(a, b)

    class Digest:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(tokens, "hmac", Digest)
    config = [type("Row", (), {"cameras": None, **row})() for row in rows()]
    table = tokens.Tokens(config)
    for role in ROLES:
        compared.clear()
        scope = table.scope_of({"authorization": f"bearer {ROLES[role][0]}"})
        assert scope is not None
        assert len(compared) == len(ROLES)
    assert table.scope_of({"authorization": f"Bearer {tokens.hash_of(ROLES['dock'][0])}"}) is None


@pytest.mark.parametrize("listen", ["0.0.0.0:8642", "[::]:8642", "192.0.2.7:80", "edge-1:8642", "localhost.evil:1"])
def test_listening_elsewhere_without_tokens_is_refused(
    tmp_path: Path, listen: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`vedette check` and `vedette run` end with 2, name the line and say both ways out."""
    file = tmp_path / "c.yaml"
    file.write_text(f"version: 1\ncameras: {{}}\nhttp:\n  listen: '{listen}'\nalerts: {{store: '{tmp_path}/s'}}\n")
    for command in ("check", "run"):
        assert main([command, str(file)]) == 2
        said = capsys.readouterr()
        assert f"{file}:4: http.listen" in said.err + said.out
        assert "vedette keys token" in said.err + said.out
        assert "127.0.0.1" in said.err + said.out


def test_a_socket_that_others_reach_is_never_opened_without_tokens() -> None:
    """The server itself looks at the address it really got: the second lock behind the configuration's."""
    with pytest.raises(ConfigError, match="token"):
        bind_tcp("0.0.0.0:0", tokens=False)
    bind_tcp("0.0.0.0:0", tokens=True).close()
    bind_tcp("127.0.0.1:0", tokens=False).close()


def test_a_token_may_not_stand_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only ${ENV}, !file or a hash; the error does not repeat the token. What `vedette keys token` prints is taken."""
    secret = "do-not-print-me-please-0123456789"
    (tmp_path / "t").write_text(secret + "\n")
    monkeypatch.setenv("WALL_TOKEN", secret)

    def load(token: str) -> None:
        file = tmp_path / "c.yaml"
        file.write_text(f"version: 1\ncameras: {{}}\nhttp: {{tokens: [{{name: wall, token: {token}}}]}}\n")
        load_config(file)

    for good in ("'${WALL_TOKEN}'", "!file t", f"'{tokens.hash_of(secret)}'"):
        load(good)
    with pytest.raises(ConfigError, match=r"tokens\[0\].token: must come from") as caught:
        load("another-one-that-stands-here-0123")
    assert "another-one" not in str(caught.value)
    with pytest.raises(ConfigError, match="token"):
        load("short")


def test_keys_token_prints_a_row_that_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The token is shown once, the row holds its hash and cameras, and the configuration takes the row as it is."""
    assert main(["keys", "token", "wall", "--camera", "dock"]) == 0
    shown, row = capsys.readouterr().out.splitlines()
    token = shown.rpartition(" ")[2]
    row = row.partition("- ")[2]
    assert len(token) >= 40
    assert token not in row
    file = tmp_path / "c.yaml"
    file.write_text(f"version: 1\ncameras: {{}}\nhttp:\n  tokens:\n  - {row}\n")
    loaded = load_config(file)
    table = tokens.Tokens(loaded.config.http.tokens)
    scope = table.scope_of({"authorization": f"Bearer {token}"})
    assert scope is not None
    assert (scope.sees("dock"), scope.sees("gate")) == (True, False)
    assert any("no such camera" in line for line in warnings(loaded))


@pytest.fixture(scope="module")
def open_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub without tokens, as it is by default."""
    with hub_with(tmp_path_factory.mktemp("open") / "store") as running:
        yield running


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8642", "127.0.0.1.evil.example", "10.0.0.1", ""])
def test_a_rebound_name_reads_nothing(open_hub: HubProcess, host: str) -> None:
    """Without tokens only this machine's own names are answered: a web page cannot reach us through a browser."""
    url = f"http://{open_hub.config['http']['listen']}/api/v1/alerts"
    assert WEB.get(url, headers={"Host": host}).status_code in (400, 421)
    for ours in ("127.0.0.1:1", "localhost", "[::1]:8642", "LOCALHOST:8642"):
        assert WEB.get(url, headers={"Host": ours}).status_code == 200


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"a" * 4_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 4_000_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 600_000 + b"\r\n",
        b"\x16\x03\x01 not http at all\r\n\r\n",
        b"GET /api/v1/alerts?from=" + b"9" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"POST /api/v1/alerts HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n[]",
        b"GET /api/v1/alerts/../../outbox.db HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /api/v1/alerts/1/snapshot/../../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ],
    ids=["path", "header", "headers", "tls", "number", "post", "dots", "snapshot-dots", "encoded-dots"],
)
def test_oversized_and_crooked_requests_are_refused(open_hub: HubProcess, request_: bytes) -> None:
    """A short 4xx and the end of the connection; the next client is served as before."""
    host, port = open_hub.config["http"]["listen"].split(":")
    with socket.create_connection((host, int(port))) as raw:
        sender = threading.Thread(target=_push, args=(raw, request_))
        sender.start()
        answer = b""
        while chunk := _pull(raw):
            answer += chunk
        sender.join()
    assert re.match(rb"HTTP/1.1 4\d\d ", answer), answer[:100]
    assert b"root:" not in answer
    url = f"http://{host}:{port}/api/v1/alerts"
    assert json.loads(WEB.get(url).text)["alerts"] == []


def _push(raw: socket.socket, data: bytes) -> None:
    try:
        raw.sendall(data)
    except OSError:
        return  # it hung up on us before the end: that is one way to refuse


def _pull(raw: socket.socket) -> bytes:
    try:
        return raw.recv(65536)
    except ConnectionResetError:
        return b""
