"""``vedette check``: validate a configuration, and this machine against it. Exit 2 with every fault."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vedette.streamer.config import load_config
from vedette.streamer.errors import ConfigError
from vedette.streamer.supervisor.environment import environment_faults, warnings
from vedette.streamer.supervisor.store_lock import holder_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette check`` takes."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="the configuration file (YAML)")


def run(args: argparse.Namespace) -> int:
    """Print ``ok: ...``; raises ConfigError with a line for each fault."""
    loaded = load_config(args.config)
    config = loaded.config
    holder = holder_of(Path(config.alerts.store))
    # the daemon that runs on this store holds these ports itself: that is what checking before a reload looks like
    faults = environment_faults(loaded, ports=holder is None)
    for line in warnings(loaded):
        print(f"warning: {line}", file=sys.stderr)
    if faults:
        raise ConfigError(faults)
    if holder is not None:
        print(f"note: ports not tried, vedette (pid {holder}) runs on this store", file=sys.stderr)
    rules = sum(len(camera.rules) for camera in config.cameras.values())
    print(
        f"ok: {_count(len(config.cameras), 'camera')}, {_count(rules, 'rule')}, {_count(len(config.alerts.sinks), 'sink')}"
    )
    return 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
