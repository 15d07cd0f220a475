"""Who may ask what over HTTP: bearer tokens (RFC 6750), each for all cameras or for some.

Tokens are compared by their SHA-256 in constant time, every one of them at every request, so that an answer's time says
nothing. They are random and long, which is why a plain hash is enough.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from typing import Protocol

PREFIX = "sha256:"


class TokenRow(Protocol):
    """A row of ``http.tokens``."""

    @property
    def name(self) -> str: ...
    @property
    def token(self) -> str: ...
    @property
    def cameras(self) -> Sequence[str] | None: ...


def new_token() -> str:
    """256 bits of the system's randomness as text."""
    return secrets.token_urlsafe(32)


def hash_of(token: str) -> str:
    """What the configuration may hold instead of a token: ``sha256:<hex>``."""
    return PREFIX + hashlib.sha256(token.encode()).hexdigest()


class Scope:
    """What a client may see. cameras: None for everything."""

    def __init__(self, cameras: Sequence[str] | None) -> None:
        self.cameras = None if cameras is None else frozenset(cameras)

    def sees(self, camera: object) -> bool:
        """Whether this camera is one of them."""
        return self.cameras is None or camera in self.cameras


EVERYTHING = Scope(None)


class Tokens:
    """The table. Without tokens everybody sees everything: the server then listens on loopback only."""

    def __init__(self, rows: Sequence[TokenRow]) -> None:
        self._table = [
            ((row.token if row.token.startswith(PREFIX) else hash_of(row.token)).encode(), Scope(row.cameras))
            for row in rows
        ]

    def __bool__(self) -> bool:
        return bool(self._table)

    def scope_of(self, headers: Mapping[str, str]) -> Scope | None:
        """What the bearer of these headers may see, None for nobody we know."""
        if not self._table:
            return EVERYTHING
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = hash_of(token.strip()).encode()
        found = None
        for known, scope in self._table:
            if hmac.compare_digest(known, given):
                found = scope
        return found if scheme.lower() == "bearer" else None
