"""What every source has in common: what is wanted, what is found, and how pictures are taken from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]


class EndOfStream(Exception):
    """A source that has an end has reached it."""


@dataclass(frozen=True, slots=True)
class Want:
    """How to open a source.

    open_timeout_s, read_timeout_s: silence longer than this is an error; longer ones forgive slower cameras and
    notice dead ones later. analyze_s: how much of a stream is looked at before it counts as opened; more opens stranger
    streams, and every opening takes that long. rest: whether the reader should be a `Resting` one where it can.
    """

    transport: Literal["tcp", "udp"] = "tcp"
    open_timeout_s: float = 10.0
    read_timeout_s: float = 20.0
    analyze_s: float = 0.5
    rest: bool = False


@dataclass(frozen=True, slots=True)
class Info:
    """What was found. fps is what the source claims, 0 when it says nothing; never trust it for a time-out."""

    codec: str
    width: int
    height: int
    fps: float


class Reader(Protocol):
    """An opened source. ``grab`` moves to the next picture, ``retrieve`` converts it; skipping is cheap."""

    @property
    def info(self) -> Info: ...

    def grab(self) -> float:
        """Decode the next picture; its timestamp in seconds (0 or repeated when the source has none).

        Raises EndOfStream at the end of a file, SourceError when a live source stops.
        """
        ...

    def retrieve(self) -> U8:
        """The picture that was grabbed, u8 [H,W,3] BGR. The array is reused by the next call. Raises SourceError."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Resting(Reader, Protocol):
    """A reader that need not decode everything while nothing moves."""

    fresh: bool
    """Whether the last ``grab`` made a new picture; while it rests most do not, and there is nothing to retrieve."""

    def rest(self, wanted: bool) -> None:
        """Nothing moves (any more): decode as little as is safe, until told otherwise or until something stirs."""
        ...


def _no_problem(_source: str) -> str | None:
    return None


def _no_address(_source: str) -> tuple[str, int] | None:
    return None


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table. live: paced by the world, not by us. address: host and port to probe between opens."""

    live: bool
    takes: Callable[[str], bool]
    open: Callable[[str, Want], Reader]
    address: Callable[[str], tuple[str, int] | None] = _no_address
    problem: Callable[[str], str | None] = _no_problem
