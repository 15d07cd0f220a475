"""From a YAML file to a `Config`, with every fault reported at once as ``file:line: key: rule, got value``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vedette.streamer.config.schema import CameraSection, Config, Problems
from vedette.streamer.config.secretvalues import secret_values
from vedette.streamer.config.yamlfile import Key, Source, read_yaml
from vedette.streamer.errors import ConfigError
from vedette.streamer.log import redact, register_secret

#: pydantic's error types in this project's words
_RULES = {
    "extra_forbidden": "unknown key",
    "missing": "is required",
    "float_type": "needs a number",
    "float_parsing": "needs a number",
    "int_type": "needs a whole number",
    "int_parsing": "needs a whole number",
    "int_from_float": "needs a whole number",
    "string_type": "needs text",
    "bool_type": "needs true or false",
    "bool_parsing": "needs true or false",
    "dict_type": "needs keys and values",
    "model_type": "needs keys and values",
    "model_attributes_type": "needs keys and values",
    "list_type": "needs a list",
    "tuple_type": "needs a list [x, y]",
    "string_pattern_mismatch": "needs the form {pattern}",
}


@dataclass(frozen=True)
class Loaded:
    """A valid configuration, where its keys stand in the file, and the secrets it drew in."""

    config: Config
    source: Source

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that must never be printed."""
        return tuple(self.source.secrets)

    def fault(self, key: Key, rule: str, got: object) -> str:
        """One line about a fault found later (a port in use, an unreadable store)."""
        return redact(f"{self.source.where(key)}: {rule}, got {got!r}")


def load_config(path: Path | str) -> Loaded:
    """The checked configuration in ``path``. Raises ConfigError holding one line for each fault."""
    source = read_yaml(Path(path))
    for secret in source.secrets:
        register_secret(secret)
    if not isinstance(source.value, dict):
        raise ConfigError([*source.problems, f"{path}:1: needs keys and values, got {type(source.value).__name__}"])
    merged = _merge_defaults(source)
    problems = list(source.problems)
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        problems += _lines(error, source)
    if not problems:
        problems += _guard_secrets(config, source)
    if problems:
        raise ConfigError([redact(line) for line in dict.fromkeys(problems)])
    return Loaded(config, source)


def _guard_secrets(config: Config, source: Source) -> list[str]:
    """Never print what is secret, also where it stands in the file itself; a token may not stand there."""
    problems = []
    drawn = tuple(source.secrets)
    for key, value in secret_values(config):
        if key[0] == "http" and value not in drawn:
            rule = "must come from ${ENV} or !file, or be the hash that `vedette keys token` prints; a token may not stand here"
            problems.append(f"{source.where(key)}: {rule}, got ***")
        register_secret(value)
        if not any(value in known for known in drawn):
            source.literals.append(key)
        if value not in source.secrets:
            source.secrets.append(value)
    return problems


def _merge_defaults(source: Source) -> dict[str, Any]:
    """Cameras over ``defaults``; zones and lines are joined, lists are replaced."""
    value = dict(source.value)
    defaults, cameras = value.get("defaults"), value.get("cameras")
    if not isinstance(defaults, dict) or not isinstance(cameras, dict):
        return value
    merged = {}
    for name, camera in cameras.items():
        if not isinstance(camera, dict):
            merged[name] = camera
            continue
        known = {key: item for key, item in defaults.items() if key in CameraSection.model_fields}
        joined = {
            key: {**known[key], **camera[key]}
            for key in ("zones", "lines", "evidence")
            if isinstance(known.get(key), dict) and isinstance(camera.get(key), dict)
        }
        merged[name] = {**known, **camera, **joined}
        # a fault inside an inherited value is reported where it stands, under defaults
        for key in list(source.lines):
            if key and key[0] == "defaults" and len(key) > 1:
                source.lines.setdefault(("cameras", name, *key[1:]), source.lines[key])
    return {**value, "cameras": merged}


def _lines(error: ValidationError, source: Source) -> list[str]:
    found = []
    for item in error.errors(include_url=False):
        key = _without_tags(item["loc"], source.value)
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, Problems):
            found += [_line(source, (*key, *below), rule, got) for below, rule, got in cause.found]
            continue
        rule = _RULES.get(item["type"], "").format(**item.get("ctx", {})) or (
            str(cause) if cause is not None else item["msg"]
        )
        if item["type"] == "missing":
            found.append(f"{source.where(key)}: is required, got nothing")
            continue
        got = item["input"]
        if item["type"] == "unknown_kind" and isinstance(got, dict):
            key, got = (*key, "kind"), got.get("kind")
        found.append(_line(source, key, rule[0].lower() + rule[1:], got))
    return _unique_inherited(found)


def _unique_inherited(lines: list[str]) -> list[str]:
    """Faults of inherited values appear once, not again for every camera."""
    at_default = {line.split(": ", 1)[0] for line in lines if ": defaults" in line}
    return [line for line in lines if ": cameras." not in line or line.split(": ", 1)[0] not in at_default]


def _line(source: Source, key: Key, rule: str, got: object) -> str:
    shown = redact(repr(got))  # before it is cut: half a secret would not be recognised
    # "got" may already be part of a geometry sentence
    suffix = "" if ", got " in rule else f", got {shown if len(shown) <= 120 else shown[:117] + '...'}"
    return f"{source.where(key)}: {rule}{suffix}"


def _without_tags(loc: tuple[str | int, ...], value: Any) -> Key:
    """The place in the file: pydantic adds a union's chosen ``kind`` and ``[key]``, the file has no such levels."""
    key: list[str | int] = []
    for part in loc:
        in_list = bool(key) and isinstance(key[-1], int)
        if part == "[key]" or (in_list and isinstance(value, dict) and value.get("kind") == part):
            # only the first level below a list item can be a tag: never mistake a later key for it
            value = dict(value) if isinstance(value, dict) else value
            if isinstance(value, dict):
                value.pop("kind", None)
            continue
        key.append(part)
        if isinstance(value, dict) and isinstance(part, str):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part] if part < len(value) else None
    return tuple(key)
