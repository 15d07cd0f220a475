"""Ask a camera for its stream by ourselves first, to learn what FFmpeg does not tell: refused, absent or mute.

RTSP: one DESCRIBE (RFC 2326, section 10.2); HTTP: one GET of which only the status is read. Both answer a
Basic or Digest challenge (RFC 7616; RFC 2069 when there is no qop) once.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import os
import re
import socket
import ssl
import time
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from vedette.streamer.errors import SourceError, SourceRefused
from vedette.streamer.log import redact

_MOST_HEADER = 64 * 1024
_MOST_REDIRECTS = 5
_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"([^"]*)"|([^\s,]+))')


class _Answer(NamedTuple):
    """What matters of a web server's answer."""

    status: int
    challenges: list[str]
    location: str


def describe(url: str, timeout_s: float) -> None:
    """Return when the RTSP server would play ``url``. Raises SourceRefused (credentials) or SourceError, redacted."""
    described(url, timeout_s).close()


def described(url: str, timeout_s: float) -> socket.socket:
    """Like `describe`; the connection stays open until the caller closes it."""
    parts = urlsplit(url)
    name = redact(url)
    deadline = time.monotonic() + timeout_s
    connection = _connect(parts, 322 if parts.scheme == "rtsps" else 554, timeout_s, name)
    try:
        status, challenges = _exchange(connection, parts, "", 1, deadline, name)
        if status == 401:
            answer = authorization(challenges, "DESCRIBE", _bare(parts), parts, name)
            status, _ = _exchange(connection, parts, f"Authorization: {answer}\r\n", 2, deadline, name)
        _judge(status, parts, name)
    except SourceError:
        connection.close()
        raise
    return connection


def ask_http(url: str, timeout_s: float) -> str:
    """Return when the web server would deliver ``url``: the address it came to, after redirects on the same host.

    Raises SourceRefused (credentials, a redirect to another host or protocol) or SourceError, redacted.
    """
    name = redact(url)
    for _ in range(_MOST_REDIRECTS):
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        answer = _get(parts, target, {}, timeout_s, name)
        if answer.status == 401:
            credentials = authorization(answer.challenges, "GET", target, parts, name)
            answer = _get(parts, target, {"Authorization": credentials}, timeout_s, name)
        if answer.status not in (301, 302, 303, 307, 308):
            _judge(answer.status, parts, name)
            return url
        url = _next_address(parts, answer.location, name)
    raise SourceError(f"{name}: redirects more than {_MOST_REDIRECTS} times")


def _next_address(parts: SplitResult, location: str, name: str) -> str:
    """Where a redirect leads: the same host, and never from https to http. Raises SourceRefused for anywhere else."""
    there = urlsplit(urljoin(_bare(parts), location))
    same = there.hostname == parts.hostname and there.scheme in ("https", parts.scheme) and not there.username
    try:
        port = there.port
    except ValueError:
        same = False
    if not same or (there.scheme == parts.scheme and port != parts.port):
        raise SourceRefused(
            f"{name}: leads elsewhere, to {redact(there.geturl())[:200]!r}; name that address if you trust it"
        )
    credentials = parts.netloc.rpartition("@")[0]
    return there._replace(netloc=f"{credentials}@{there.netloc}" if credentials else there.netloc).geturl()


def authorization(challenges: list[str], method: str, uri: str, parts: SplitResult, name: str) -> str:
    """The Authorization header that answers a 401. Raises SourceRefused when the URL has no user or nobody could."""
    if not parts.username:
        raise SourceRefused(f"{name}: asks for a user and password; write them into the address, user:password@host")
    user, password = unquote(parts.username), unquote(parts.password or "")
    for challenge in challenges:
        scheme, _, rest = challenge.strip().partition(" ")
        if scheme.lower() == "digest":
            return _digest({k.lower(): a or b for k, a, b in _PARAMETER.findall(rest)}, method, uri, user, password)
    if any(challenge.strip().lower().startswith("basic") for challenge in challenges):
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    raise SourceRefused(f"{name}: asks for a way to log in that is not known here, got {challenges!r:.200}")


def _digest(asked: dict[str, str], method: str, uri: str, user: str, password: str) -> str:
    algorithm = asked.get("algorithm", "MD5")
    hasher = hashlib.sha256 if algorithm.upper().startswith("SHA-256") else hashlib.md5

    def h(text: str) -> str:
        return hasher(text.encode()).hexdigest()

    realm, nonce = asked.get("realm", ""), asked.get("nonce", "")
    secret, what = h(f"{user}:{realm}:{password}"), h(f"{method}:{uri}")
    fields = f'username="{user}", realm="{realm}", nonce="{nonce}", uri="{uri}"'
    if "auth" in [word.strip() for word in asked.get("qop", "").split(",")]:
        cnonce = os.urandom(8).hex()
        response = h(f"{secret}:{nonce}:00000001:{cnonce}:auth:{what}")
        fields += f', qop=auth, nc=00000001, cnonce="{cnonce}"'
    else:
        response = h(f"{secret}:{nonce}:{what}")
    fields += f', response="{response}", algorithm={algorithm}'
    if "opaque" in asked:
        fields += f', opaque="{asked["opaque"]}"'
    return f"Digest {fields}"


def _judge(status: int, parts: SplitResult, name: str) -> None:
    if 300 <= status < 400:
        raise SourceRefused(f"{name}: leads elsewhere (status {status}); give the address it leads to")
    if status in (401, 403, 407):
        why = "wrong user or password" if parts.username else "access is denied"
        raise SourceRefused(f"{name}: {why} (status {status})")
    if status in (404, 410):
        raise SourceError(f"{name}: the server has no such stream (status {status}); check the path")
    if not 200 <= status < 300:
        raise SourceError(f"{name}: the server answers with status {status}")


def _bare(parts: SplitResult) -> str:
    """The URL without user and password."""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _connect(parts: SplitResult, default_port: int, timeout_s: float, name: str) -> socket.socket:
    try:
        connection = socket.create_connection((parts.hostname or "", parts.port or default_port), timeout_s)
        if parts.scheme == "rtsps":
            # Cameras sign their own certificates; FFmpeg does not verify them either.
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = context.wrap_socket(connection)
    except (OSError, ValueError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise SourceError(f"{name}: cannot be reached: {reason}") from error
    return connection


def _exchange(
    connection: socket.socket, parts: SplitResult, extra: str, number: int, deadline: float, name: str
) -> tuple[int, list[str]]:
    """Send one DESCRIBE, read the answer's status and challenges."""
    request = (
        f"DESCRIBE {_bare(parts)} RTSP/1.0\r\nCSeq: {number}\r\nUser-Agent: vedette\r\n"
        f"Accept: application/sdp\r\n{extra}\r\n"
    )
    answer = b""
    try:
        connection.settimeout(max(0.1, deadline - time.monotonic()))
        connection.sendall(request.encode())
        while b"\r\n\r\n" not in answer:
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            chunk = connection.recv(4096)
            if not chunk or len(answer) > _MOST_HEADER or time.monotonic() > deadline:
                break
            answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        fields = [line.partition(":") for line in lines[1:]]
        _skip_body(connection, fields, len(body))
    except TimeoutError as error:
        raise SourceError(f"{name}: accepts the connection but does not answer") from error
    except OSError as error:
        raise SourceError(f"{name}: broke the connection: {error.strerror}") from error
    words = lines[0].split(" ", 2)
    if len(words) < 2 or not words[0].startswith("RTSP/") or not words[1].isdigit():
        raise SourceError(f"{name}: does not speak RTSP, got {lines[0]!r:.80}")
    return int(words[1]), [value for key, _, value in fields if key.strip().lower() == "www-authenticate"]


def _skip_body(connection: socket.socket, fields: list[tuple[str, str, str]], have: int) -> None:
    lengths = [value.strip() for key, _, value in fields if key.strip().lower() == "content-length"]
    left = min(int(lengths[0]), _MOST_HEADER) - have if lengths and lengths[0].isdigit() else 0
    while left > 0 and (chunk := connection.recv(min(left, 4096))):
        left -= len(chunk)


def _get(parts: SplitResult, target: str, headers: dict[str, str], timeout_s: float, name: str) -> _Answer:
    secure = parts.scheme.lower() == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    try:
        with contextlib.closing(kind(parts.hostname or "", parts.port, timeout=timeout_s)) as connection:
            connection.request("GET", target, headers={"User-Agent": "vedette", **headers})
            answer = connection.getresponse()
            challenges = answer.headers.get_all("WWW-Authenticate") or []
            return _Answer(answer.status, challenges, answer.headers.get("Location", ""))
    except TimeoutError as error:
        raise SourceError(f"{name}: accepts the connection but does not answer") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise SourceError(f"{name}: cannot be reached: {reason}") from error
