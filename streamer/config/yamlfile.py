"""A YAML file as plain values that remember the line they came from.

``${NAME}`` in any text is replaced from the environment and ``!file PATH`` by the content of a file; what they
bring is a secret: it is remembered so that no log, error or API prints it. Only plain YAML is read (no
Python tags, no anchors that expand without bound: the file is small and aliases are refused).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vedette.streamer.errors import ConfigError

_ENV = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}")
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null", "timestamp"))
MAX_BYTES = 4 * 1024 * 1024
#: Values after aliases are expanded; a few lines of them can stand for billions.
MAX_VALUES = 50_000
Key = tuple[str | int, ...]


@dataclass
class Source:
    """A parsed file: its values, the line of every key path, the secrets it drew in, and what was wrong.

    literals: keys whose secret stands in the file itself.
    """

    path: str
    value: Any = None
    lines: dict[Key, int] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    literals: list[Key] = field(default_factory=list)

    def where(self, key: Key) -> str:
        """``file:line: dotted.key`` of the key, or of its nearest parent that the file holds."""
        probe = key
        while probe and probe not in self.lines:
            probe = probe[:-1]
        line = self.lines.get(probe, 1)
        return f"{self.path}:{line}: {dotted(key)}" if key else f"{self.path}:{line}"

    def complain(self, key: Key, rule: str) -> None:
        """Remember a fault at ``key``."""
        self.problems.append(f"{self.where(key)}: {rule}")


def dotted(key: Key) -> str:
    """``cameras.dock.rules[1].line``."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def read_yaml(path: Path) -> Source:
    """Parse ``path``. Raises ConfigError when it cannot be read or is not YAML; other faults are in ``problems``."""
    source = Source(str(path))
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}:1: cannot be read: {error.strerror or error}; name a readable YAML file") from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}:1: is {len(raw)} bytes; at most {MAX_BYTES} are read")
    try:
        node = yaml.compose(raw.decode(), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}:1: is not UTF-8 text, got byte {error.object[error.start]:#04x} at {error.start}"
        ) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: is not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}:1: is not YAML: {error}") from error
    source.value = _plain(node, (), source, set()) if node is not None else None
    return source


def _plain(node: yaml.Node, key: Key, source: Source, above: set[int]) -> Any:
    source.lines.setdefault(key, node.start_mark.line + 1)
    if len(source.lines) > MAX_VALUES:
        raise ConfigError(f"{source.path}:{node.start_mark.line + 1}: holds more than {MAX_VALUES} values")
    if id(node) in above:
        source.complain(key, "an alias must not contain itself")
        return None
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, key, source, above | {id(node)})
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*key, i), source, above | {id(node)}) for i, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)
    if node.tag == "!file":
        return _file_secret(node.value, key, source)
    if node.tag == "tag:yaml.org,2002:str":
        return _expand(node.value, key, source)
    if node.tag not in _PLAIN_TAGS:
        source.complain(key, f"unknown tag, got {node.tag}; only !file is known")
        return None
    try:
        return yaml.SafeLoader("").construct_object(node)  # numbers, booleans, null, dates
    except (yaml.YAMLError, ValueError) as error:
        source.complain(key, f"cannot be read as {node.tag.rsplit(':', 1)[-1]}, got {node.value!r} ({error})")
        return None


def _mapping(node: yaml.MappingNode, key: Key, source: Source, above: set[int]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        name = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        line = key_node.start_mark.line + 1
        if not isinstance(name, str) or name == "<<":
            source.problems.append(
                f"{source.path}:{line}: {dotted(key) or 'file'}: keys must be plain text, got {name!r}"
            )
            continue
        here = (*key, name)
        if name in result:
            source.problems.append(
                f"{source.path}:{line}: {dotted(here)}: appears twice, first at line {source.lines[here]}"
            )
            continue
        source.lines[here] = line
        result[name] = _plain(value_node, here, source, above)
    return result


def _expand(text: str, key: Key, source: Source) -> str:
    def replace(found: re.Match[str]) -> str:
        value = os.environ.get(found["name"])
        if value is None:
            source.complain(key, f"environment variable must be set, got nothing for ${{{found['name']}}}")
            return ""
        source.secrets.append(value)
        return value

    return _ENV.sub(replace, text)


def _file_secret(name: str, key: Key, source: Source) -> str:
    path = Path(source.path).parent / name
    try:
        value = path.read_text().rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        source.complain(key, f"!file must name a readable text file, got {name!r} ({reason})")
        return ""
    source.secrets.append(value)
    return value
