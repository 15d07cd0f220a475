"""Alerts posted to a URL as JSON, one request each, in order, at least once.

``Idempotency-Key: id:rev`` lets the receiver drop what it has seen. Answers:
2xx is delivered. 400, 405, 406, 409, 410, 411, 413, 414, 415, 422 and 431 refuse this alert for good: it is counted, logged
and skipped, so that one alert cannot block the others. Everything else (no connection, time-out, 3xx, 401, 403,
404, 408, 425, 429, 5xx) is tried again with growing pauses, for ever: those are cured by somebody's repair.

With a ``secret`` two headers prove who wrote: ``X-Vedette-Signature: sha256=<hex>`` covers the body, and
``X-Vedette-Signature-V2: t=<unix seconds>,sha256=<hex>`` covers ``<t>.<body>``, so that an old request cannot be sent
again later by somebody who recorded it. SECURITY.md shows how to verify it. https is verified against the system's
certificates, or those in ``ca``; there is no switch to turn that off.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from vedette.streamer.errors import SinkError
from vedette.streamer.log import redact
from vedette.streamer.outbox.records import Stored
from vedette.streamer.sinks.base import Place, SinkConfig

log = logging.getLogger("vedette.sinks.webhook")

REFUSED_FOR_GOOD = frozenset({400, 405, 406, 409, 410, 411, 413, 414, 415, 422, 431})
#: How much of an answer is read, bytes.
_MOST_ANSWER = 65536
#: Longest pause a receiver may ask for, seconds.
MAX_RETRY_AFTER_S = 300.0


class WebhookConfig(SinkConfig):
    """url: http(s)://. headers: sent with every request (tokens by ``${ENV}`` or ``!file``). timeout: seconds to
    connect and to wait for an answer. secret: signs body and time, see the module. ca: a file of certificates to trust
    instead of the system's."""

    kind: Literal["webhook"] = "webhook"
    url: Annotated[str, Field(min_length=1, max_length=2048)]
    headers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")], Annotated[str, Field(max_length=4096)]] = (
        Field(default_factory=dict)
    )
    timeout: Annotated[float, Field(gt=0, le=60)] = 5.0
    secret: Annotated[str, Field(min_length=8)] | None = None
    ca: str | None = None

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("needs http://HOST/... or https://HOST/...")
        return value

    @field_validator("headers")
    @classmethod
    def _one_line(cls, value: dict[str, str]) -> dict[str, str]:
        if any("\r" in text or "\n" in text for text in value.values()):
            raise ValueError("header values must be one line")
        return value

    def connect(self, place: Place) -> WebhookSink:
        """A connection is opened by the first delivery."""
        del place
        return WebhookSink(self)


def signatures(secret: str, body: bytes, unix_s: int) -> dict[str, str]:
    """The headers that prove who wrote ``body``, and when (HMAC-SHA-256, RFC 2104)."""

    def sign(message: bytes) -> str:
        return "sha256=" + hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()

    return {
        "X-Vedette-Signature": sign(body),
        "X-Vedette-Signature-V2": f"t={unix_s},{sign(b'%d.%s' % (unix_s, body))}",
    }


class WebhookSink:
    """Keeps one connection alive. Redirects are not followed: an alert goes where the configuration says."""

    def __init__(self, config: WebhookConfig) -> None:
        import urllib3  # here, so that a process that only reads the configuration does not pay for it

        self._config = config
        self._failures = (urllib3.exceptions.HTTPError, OSError)
        self._timeout = urllib3.Timeout(connect=config.timeout, read=config.timeout)
        if config.ca is not None and not Path(config.ca).is_file():
            raise SinkError(f"webhook: {config.ca}: no such file of certificates")
        self._pool = urllib3.PoolManager(
            num_pools=1, maxsize=1, retries=False, cert_reqs="CERT_REQUIRED", ca_certs=config.ca
        )
        self._refused = 0

    def deliver(self, alerts: Sequence[Stored]) -> int:
        """Post one after the other; stops at the first that is not taken. Raises SinkError when that is the first."""
        for done, alert in enumerate(alerts):
            try:
                self._post(alert)
            except SinkError:
                if done:
                    return done
                raise
        return len(alerts)

    def _post(self, alert: Stored) -> None:
        config = self._config
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "vedette",
            **config.headers,
            "Idempotency-Key": f"{alert.id}:{alert.rev}",
        }
        if config.secret:
            headers |= signatures(config.secret, alert.body, int(time.time()))
        try:
            answer = self._pool.request(
                "POST",
                config.url,
                body=alert.body,
                headers=headers,
                timeout=self._timeout,
                redirect=False,
                preload_content=False,
            )
            try:
                said = answer.read(_MOST_ANSWER, decode_content=False)
                if answer.read(1, decode_content=False):
                    answer.close()  # more than anybody needs to say: do not read on
            finally:
                answer.release_conn()
        except self._failures as error:
            raise SinkError(redact(f"webhook: {type(error).__name__}: {error}")[:300]) from error
        if 200 <= answer.status < 300:
            return
        if answer.status in REFUSED_FOR_GOOD:
            self._refused += 1
            words = redact(said.decode("utf-8", "replace"))[:120]  # it may echo our token; redact before cutting
            log.error("alert %d (%s:%d) was refused: %d %r", alert.seq, alert.id, alert.rev, answer.status, words)
            return
        raise _try_later(answer.status, answer.headers.get("Retry-After"))

    def refused(self) -> int:
        """Alerts the receiver refused for good since the last call."""
        count, self._refused = self._refused, 0
        return count

    def close(self) -> None:
        """Close the connection."""
        self._pool.clear()


def _try_later(status: int, retry_after: str | None) -> SinkError:
    error = SinkError(f"webhook: answered {status}")
    if retry_after is not None and retry_after.isdigit():
        error.retry_after_s = min(float(retry_after), MAX_RETRY_AFTER_S)
    return error
