"""The webhook sink against a real web server: order, repetition, refusal, and proof of who wrote."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.streamer.sinks.sink_ends import Receiver, commit, start, until
from vedette.streamer.errors import SinkError
from vedette.streamer.log import register_secret
from vedette.streamer.outbox.reader import OutboxReader
from vedette.streamer.outbox.store import Outbox
from vedette.streamer.sinks.base import Place
from vedette.streamer.sinks.webhook import REFUSED_FOR_GOOD, WebhookConfig, signatures

ROOT = Path(__file__).resolve().parents[3]


def test_webhook_posts_in_order_with_an_idempotency_key_and_a_signature(outbox: Outbox, receiver: Receiver) -> None:
    """Each alert is one request; headers of the configuration go along; the HMAC covers the very bytes sent."""
    secret = "a long secret"
    config = WebhookConfig(url=receiver.url, headers={"Authorization": "Bearer t"}, secret=secret)
    runner = start(outbox, config)
    commit(outbox, 5, runner)
    until(lambda: len(receiver.got) == 5)
    runner.stop()
    assert [a["seq"] for a in receiver.got] == [1, 2, 3, 4, 5]
    for alert, headers, body in zip(receiver.got, receiver.headers, receiver.bodies, strict=True):
        assert headers["Idempotency-Key"] == f"{alert['id']}:{alert['rev']}"
        assert headers["Authorization"] == "Bearer t"
        digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        assert headers["X-Vedette-Signature"] == f"sha256={digest}"


def test_webhook_signs_the_time_too(outbox: Outbox, receiver: Receiver) -> None:
    """The second signature covers the moment and the body: neither can be exchanged without being noticed."""
    runner = start(outbox, WebhookConfig(url=receiver.url, secret="a long secret"))
    commit(outbox, 1, runner)
    until(lambda: receiver.got)
    runner.stop()
    (headers,), (body,) = receiver.headers, receiver.bodies
    moment, _, proof = headers["X-Vedette-Signature-V2"].removeprefix("t=").partition(",sha256=")
    assert abs(time.time() - int(moment)) < 60
    assert proof == hmac.new(b"a long secret", moment.encode() + b"." + body, hashlib.sha256).hexdigest()


def test_the_documented_way_to_verify_a_request_works(tmp_path: Path) -> None:
    """The code in SECURITY.md takes what we sign, and nothing that was changed, is old or lacks its header."""
    text = (ROOT / "SECURITY.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?def is_ours.*?)```", text, re.DOTALL)
    (tmp_path / "verify.py").write_text(snippet)
    now = int(time.time())
    good = signatures("a long secret", b'{"seq":1}', now)["X-Vedette-Signature-V2"]
    old = signatures("a long secret", b'{"seq":1}', now - 400)["X-Vedette-Signature-V2"]
    cases = [
        (good, '{"seq":1}', True),
        (good, '{"seq":2}', False),
        (good.replace(str(now), str(now + 1)), '{"seq":1}', False),
        (old, '{"seq":1}', False),
        ("", '{"seq":1}', False),
        ("t=x,sha256=", '{"seq":1}', False),
    ]
    ask = "import sys, json, verify; print(json.dumps([verify.is_ours('a long secret', h, b.encode()) for h, b, _ in json.load(sys.stdin)]))"
    said = subprocess.run(
        [sys.executable, "-c", ask], cwd=tmp_path, input=json.dumps(cases), capture_output=True, text=True, check=True
    )
    assert json.loads(said.stdout) == [verdict for _, _, verdict in cases]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for `localhost` that nobody signed but itself, with its key in the same file."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    file = tmp_path_factory.mktemp("tls") / "cert.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    command = ["openssl", *words.split(), "-keyout", str(file), "-out", str(file) + ".crt"]
    subprocess.run(command, check=True, capture_output=True)
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file


def test_webhook_verifies_certificate_and_name(outbox: Outbox, receiver: Receiver, certificate: Path) -> None:
    """https to a stranger's certificate, or under another name than the certificate's, delivers nothing and is tried
    again; with the certificate in `ca` it is delivered. There is no key of the configuration that turns this off."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
    commit(outbox, 1)
    reader = OutboxReader(outbox.path.parent)
    alerts = reader.page(0).alerts
    reader.close()
    right = f"https://localhost:{receiver.server_port}/hook"
    wrong = f"https://127.0.0.1:{receiver.server_port}/hook"
    for url, ca, refused in (
        (right, None, True),
        (wrong, f"{certificate}.crt", True),
        (right, f"{certificate}.crt", False),
    ):
        sink = WebhookConfig(url=url, ca=ca, timeout=2).connect(Place("yard", outbox.stream, 0))
        if refused:
            with pytest.raises(SinkError, match=r"(?i)certificate"):
                sink.deliver(alerts)
        else:
            assert sink.deliver(alerts) == 1
        sink.close()
    assert [alert["seq"] for alert in receiver.got] == [1]
    with pytest.raises(ValueError, match="verify"):
        WebhookConfig(url=right, verify=False)


def test_a_refusing_receiver_cannot_make_us_log_our_own_secret(
    outbox: Outbox, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer that echoes the token, even cut in the middle of it, is blanked before it is shortened."""
    token = "canary" * 30
    register_secret(token)
    receiver.say = b"you said " + token.encode()
    receiver.decide = lambda _alert: (422, {})
    runner = start(outbox, WebhookConfig(url=receiver.url, headers={"Authorization": f"Bearer {token}"}))
    commit(outbox, 1, runner)
    until(lambda: runner.refused == 1)
    runner.stop()
    assert "was refused" in caplog.text
    assert "canary" not in caplog.text


@pytest.mark.parametrize("status", [301, 401, 403, 404, 408, 429, 500, 503])
def test_webhook_tries_again_what_somebody_can_repair(outbox: Outbox, receiver: Receiver, status: int) -> None:
    """The same alert is offered until it is taken; order is kept."""
    tries: list[int] = []

    def decide(alert: dict[str, Any]) -> tuple[int, dict[str, str]]:
        tries.append(alert["seq"])
        return (200, {}) if len(tries) > 2 else (status, {"Location": receiver.url, "Retry-After": "0"})

    receiver.decide = decide
    runner = start(outbox, WebhookConfig(url=receiver.url))
    commit(outbox, 2, runner)
    until(lambda: len(receiver.got) == 2)
    until(lambda: runner.status()["lag"] == 0)
    runner.stop()
    assert tries == [1, 1, 1, 2]
    assert runner.failures == 2


@pytest.mark.parametrize("status", sorted(REFUSED_FOR_GOOD)[:3])
def test_webhook_skips_what_is_refused_for_good(outbox: Outbox, receiver: Receiver, status: int) -> None:
    """One alert the receiver will never take does not hold up the others, and is counted."""
    receiver.decide = lambda alert: (status, {}) if alert["seq"] == 2 else (200, {})
    runner = start(outbox, WebhookConfig(url=receiver.url))
    commit(outbox, 3, runner)
    until(lambda: runner.status()["lag"] == 0)
    runner.stop()
    assert [a["seq"] for a in receiver.got] == [1, 3]
    assert (runner.delivered, runner.refused) == (2, 1)


def test_webhook_that_never_answers_is_given_up_in_time(outbox: Outbox) -> None:
    """A server that accepts and says nothing costs the time-out, not for ever; the password is not told."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://user:hunter2@127.0.0.1:{silent.getsockname()[1]}/"
        sink = WebhookConfig(url=url, timeout=0.2).connect(Place("yard", outbox.stream, 0))
        commit(outbox, 1)
        reader = OutboxReader(outbox.path.parent)
        began = time.monotonic()
        with pytest.raises(SinkError) as caught:
            sink.deliver(reader.page(0).alerts)
        assert time.monotonic() - began < 3
        assert "hunter2" not in str(caught.value)
        reader.close()
        sink.close()


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"url": "ftp://host/"}, "url"),
        ({"url": "http:///path"}, "url"),
        ({"url": "http://h/", "headers": {"A": "b\r\nX: y"}}, "headers"),
        ({"url": "http://h/", "timeout": 0}, "timeout"),
        ({"url": "http://h/", "secret": "short"}, "secret"),
    ],
)
def test_webhook_configuration_is_checked(wrong: dict[str, Any], where: str) -> None:
    """Schemes, header injection, time-outs."""
    with pytest.raises(ValueError, match=where):
        WebhookConfig(**wrong)
