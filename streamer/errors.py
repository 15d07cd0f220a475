"""Operational errors, one small tree. Programmer errors stay built-in exceptions.

VedetteError
├── ConfigError      the configuration is wrong            exit 2
├── EngineError      no engine could be loaded             exit 3
├── SourceError      a camera or file could not be read    exit 4
│   └── SourceRefused    it answered and said no, or its data is bad: retry slowly
├── WireError        a message from outside is malformed   counted and dropped
├── StoreError       the alert store cannot be used        exit 2
└── SinkError        a sink did not take an alert          retried
"""

from __future__ import annotations


class VedetteError(Exception):
    """Base of everything that can go wrong while running; the message says where, what, got, and the fix."""

    exit_code = 1


class ConfigError(VedetteError):
    """The configuration is wrong; one line ``file:line: key: rule, got value`` for each fault."""

    exit_code = 2

    def __init__(self, problems: list[str] | str) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class EngineError(VedetteError):
    """No engine could be loaded, or it failed for good."""

    exit_code = 3


class SourceError(VedetteError):
    """A camera, stream or file could not be opened or stopped delivering."""

    exit_code = 4


class SourceRefused(SourceError):
    """The source answered and refused (credentials), or what it holds is not video."""


class WireError(VedetteError):
    """A message from outside is malformed; it is counted and dropped, never obeyed."""


class StoreError(VedetteError):
    """The alert store cannot be opened or written."""

    exit_code = 2


class SinkError(VedetteError):
    """A sink did not take an alert; it is offered again. retry_after_s: when the other side asked for it."""

    retry_after_s: float | None = None
