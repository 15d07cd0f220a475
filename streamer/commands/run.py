"""``vedette run``: the daemon, in the foreground.

Exit 0 stopped cleanly, 1 something had to be killed, 2 wrong configuration, 3 no engine could be loaded.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from vedette.streamer.config import Loaded, load_config
from vedette.streamer.errors import ConfigError, VedetteError
from vedette.streamer.log import setup_logging
from vedette.streamer.supervisor.environment import environment_faults, store_faults
from vedette.streamer.supervisor.role import Supervisor
from vedette.streamer.supervisor.rundir import RunDir, run_dir_for
from vedette.streamer.supervisor.store_lock import StoreLock

log = logging.getLogger("vedette.supervisor")

#: How long the ports of a predecessor that was just killed may take to become free, seconds.
PATIENCE_S = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette run`` takes."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="the configuration file (YAML)")
    parser.add_argument("--log", choices=("debug", "info", "warning", "error"), help="how much is logged to stderr")


def run(args: argparse.Namespace) -> int:
    """Check, then run until SIGTERM or SIGINT; SIGHUP reloads the file."""
    setup_logging(args.log)
    os.umask(0o027)  # store and run folder are the group's at most, whatever the caller's umask is
    try:
        return run_daemon(load_config(args.config), args.config)
    except VedetteError:
        raise
    except Exception:
        log.critical("a bug ended the daemon", exc_info=True)  # through the redacting log, unlike a bare traceback
        return 1


def run_daemon(loaded: Loaded, path: Path, targets: Mapping[str, str] | None = None) -> int:
    """The daemon of one configuration: hold its store, own its run folder, supervise. Raises ConfigError, StoreError.

    path: the file SIGHUP loads again. targets: see `Supervisor`.
    """
    if store_faults(loaded):
        raise ConfigError(environment_faults(loaded))
    store = Path(loaded.config.alerts.store)
    store.mkdir(mode=0o750, parents=True, exist_ok=True)
    lock = StoreLock(store)
    try:
        faults = environment_faults(loaded, patience_s=PATIENCE_S)
        if faults:
            raise ConfigError(faults)
        run_dir = RunDir(run_dir_for(store))
        try:
            return Supervisor(loaded, path, run_dir.path, targets=targets).run()
        finally:
            run_dir.remove()
    finally:
        lock.release()
