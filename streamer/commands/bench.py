"""``vedette bench``: measure on this machine. Each measurement is a module of ``streamer/bench``."""

from __future__ import annotations

import argparse
import importlib
import pkgutil

from vedette.streamer import bench


def names() -> list[str]:
    """The measurements that are installed."""
    found = (module.name for module in pkgutil.iter_modules(bench.__path__))
    return sorted(name for name in found if not name.startswith("_") and not name.endswith("_peers"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette bench`` takes: a name, and what that measurement takes."""
    parser.add_argument("name", choices=names(), metavar="NAME", help=", ".join(names()) or "none is installed")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="see `vedette bench NAME --help`")


def run(args: argparse.Namespace) -> int:
    """Measure; JSON goes to standard output."""
    module = importlib.import_module(f"{bench.__name__}.{args.name}")
    parser = argparse.ArgumentParser(prog=f"vedette bench {args.name}", description=module.__doc__)
    module.add_arguments(parser)
    status: int = module.run(parser.parse_args(args.rest))
    return status
