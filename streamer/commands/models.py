"""``vedette models``: what is installed, what can be fetched by name, and whether it is what it should be."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from typing import Any

from vedette.streamer.errors import EngineError

ZOO = "vedette.engines.zoo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``vedette models`` takes."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list | pull | verify")
    show = actions.add_parser("list", help="shipped models, and those that can be pulled")
    show.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    for name, text in (
        ("pull", "fetch by name; resumes, checks the SHA-256, and leaves nothing behind when it is wrong"),
        ("verify", "check the SHA-256 of pulled models (all that are here, unless named)"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("name", nargs="+" if name == "pull" else "*", metavar="NAME")


def run(args: argparse.Namespace) -> int:
    """Exit 0; 3 (EngineError) with a sentence for what could not be fetched or is not what it should be."""
    zoo: Any = importlib.import_module(ZOO)
    fault: Any = importlib.import_module("vedette.engines.api").EngineFault
    try:
        return int({"list": _list, "pull": _pull, "verify": _verify}[args.action](zoo, args))
    except fault as error:
        raise EngineError(str(error)) from error


def _list(zoo: Any, args: argparse.Namespace) -> int:
    runtime: Any = importlib.import_module("vedette.engines.runtimes.onnxruntime")
    rows = [
        {"name": p.stem, "state": "shipped", "path": str(p), "bytes": p.stat().st_size, "sha256": runtime.sha256_of(p)}
        for p in zoo.shipped()
    ]
    for model in zoo.MODELS.values():
        path = zoo.path_of(model)
        rows.append(
            {
                "name": model.name,
                "state": "pulled" if path.is_file() else "available",
                "path": str(path) if path.is_file() else None,
                "bytes": model.size_bytes,
                "sha256": model.sha256,
                "family": model.family,
                "licence": model.licence,
                "url": model.url,
                "note": model.note,
            }
        )
    if args.format == "json":
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        print(
            f"{row['name']:<22} {row['state']:<10} {int(row['bytes']) / 1e6:7.1f} MB  {row['sha256'][:12]}  {row.get('note', '')}"
        )
    return 0


def _pull(zoo: Any, args: argparse.Namespace) -> int:
    models = [zoo.find(name) for name in args.name]
    for model in models:
        print(_pull_one(zoo, model))
    return 0


def _pull_one(zoo: Any, model: Any) -> str:
    """Pull with a progress bar on a terminal, silently elsewhere; the path."""
    if not sys.stderr.isatty():
        return str(zoo.pull(model))
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(model.name, total=model.size_bytes)
        return str(zoo.pull(model, progress=lambda have, total: bar.update(task, completed=have, total=total)))


def _verify(zoo: Any, args: argparse.Namespace) -> int:
    models = [zoo.find(name) for name in args.name] or [m for m in zoo.MODELS.values() if zoo.path_of(m).is_file()]
    if not models:
        print("nothing has been pulled; shipped models are checked by `vedette engine verify`")
    for model in models:
        print(f"ok: {model.name} {zoo.verify(model)}")
    return 0
