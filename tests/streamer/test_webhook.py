"""The webhook sink against a real web server: order, repetition, refusal, and proof of who wrote."""

from __future__ import annotations

import hashlib
import hmac
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.streamer.sink_ends import Receiver, commit, opened, start, until
from vedette.streamer.errors import SinkError
from vedette.streamer.outbox import Outbox
from vedette.streamer.outboxreader import OutboxReader
from vedette.streamer.sinks.base import Place
from vedette.streamer.sinks.webhook import REFUSED_FOR_GOOD, WebhookConfig


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """A store to deliver from."""
    yield from opened(tmp_path / "store")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A webhook's other end."""
    made = Receiver()
    yield made
    made.end()


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
