"""``vedette``: a table of commands. Each is a module with ``add_arguments(parser)`` and ``run(args) -> int``.

Only the chosen command is imported, so that ``vedette --help`` and ``vedette watch`` start at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from vedette.streamer.errors import VedetteError

#: command -> (module, what it does)
COMMANDS = {
    "run": ("vedette.streamer.commands.run", "run the daemon in the foreground"),
    "demo": ("vedette.streamer.commands.demo", "play a sample clip as a live camera through the whole daemon"),
    "check": ("vedette.streamer.commands.check", "validate a configuration"),
    "probe": ("vedette.streamer.commands.probe", "open a source and say what it delivers"),
    "watch": ("vedette.streamer.commands.watch", "subscribe to alerts, tracks and status"),
    "keys": ("vedette.streamer.commands.keys", "keys of subscribers, tokens of HTTP clients"),
    "process": ("vedette.streamer.commands.process", "run files through the pipeline as fast as possible"),
    "track": ("vedette.streamer.commands.track", "run only the tracker, on MOTChallenge detections"),
    "engine": ("vedette.streamer.commands.engine", "export, build, verify, show or measure an engine"),
    "models": ("vedette.streamer.commands.models", "list, fetch and verify models"),
    "bench": ("vedette.streamer.commands.bench", "measure on this machine, peers beside ours"),
    "doctor": ("vedette.streamer.commands.doctor", "what this machine has, and what it lacks"),
}
#: As a shell reports a program that SIGINT or SIGPIPE ended.
EXIT_INTERRUPTED, EXIT_PIPE = 130, 141


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"vedette {version('vedette')}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        status = _dispatch(words)
        sys.stdout.flush()
    except VedetteError as error:
        print(_sentence(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # the reader left; the interpreter's own flush at exit must not complain either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    return status


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The arguments of the command that ``words`` name, with its ``run`` beside them. Exits 2 when they do not fit."""
    parser = argparse.ArgumentParser(
        prog="vedette", description="Watches cameras and tells its subscribers what happens."
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, (path, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name == chosen:
            module = importlib.import_module(path)
            command.description = _description(module.__doc__) or command.description
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser.parse_args(words)


def _dispatch(words: Sequence[str]) -> int:
    args = parse(words)
    status: int = args.run(args)
    return status


def _description(doc: str | None) -> str | None:
    """A module's docstring without its first ``name: `` part."""
    first = (doc or "").strip().partition("\n\n")[0]
    return first.partition(": ")[2].capitalize() or None if first.startswith("``") else None


def _sentence(error: VedetteError) -> str:
    from vedette.streamer.errors import ConfigError
    from vedette.streamer.log import redact

    text = redact(str(error))
    return text if isinstance(error, ConfigError) else f"vedette: {text}"


if __name__ == "__main__":
    sys.exit(main())
