"""``vedette bench``: measure on this machine. Each measurement is a module of ``streamer/bench``."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import pkgutil
from contextlib import redirect_stdout
from pathlib import Path

from vedette.streamer import bench
from vedette.streamer.bench._plot import check_plot, draw_plot
from vedette.streamer.errors import VedetteError


def names() -> list[str]:
    """The measurements that are installed."""
    found = (module.name for module in pkgutil.iter_modules(bench.__path__))
    return sorted(name for name in found if not name.startswith("_") and not name.endswith("_peers"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette bench`` takes: a name, and what that measurement takes."""
    parser.add_argument("name", choices=names(), metavar="NAME", help=", ".join(names()) or "none is installed")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="see `vedette bench NAME --help`")


def run(args: argparse.Namespace) -> int:
    """Measure; JSON goes to standard output, with ``--plot`` its picture into a file."""
    module = importlib.import_module(f"{bench.__name__}.{args.name}")
    parser = argparse.ArgumentParser(prog=f"vedette bench {args.name}", description=module.__doc__)
    module.add_arguments(parser)
    parser.add_argument("--plot", type=Path, metavar="PNG", help="also draw the figures (needs the extra: plot)")
    chosen = parser.parse_args(args.rest)
    if chosen.plot is None:
        status: int = module.run(chosen)
        return status
    check_plot(chosen.plot)
    told = io.StringIO()
    try:
        with redirect_stdout(told):
            status = module.run(chosen)
    finally:
        print(told.getvalue(), end="", flush=True)
    try:
        document = json.loads(told.getvalue())
    except ValueError as error:
        raise VedetteError("bench --plot: draws the JSON document; leave out what prints something else") from error
    draw_plot(args.name, document, chosen.plot)
    return status
