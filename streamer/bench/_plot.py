"""The picture of a measurement, ``vedette bench NAME --plot PNG``: drawn from the JSON that was printed, by matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vedette.streamer.errors import VedetteError

Document = Mapping[str, Any]
Row = Mapping[str, Any]
Axes = Any  # matplotlib's; it is not there at all without the extra


def check_plot(path: Path) -> None:
    """Raise VedetteError when no picture can be drawn there; called before minutes are spent on measuring."""
    if not path.absolute().parent.is_dir():
        raise VedetteError(f"bench --plot: {path}: there is no such folder; make it first")
    if find_spec("matplotlib") is None:
        raise VedetteError("bench --plot: needs matplotlib, which is not installed; pip install 'vedette[plot]'")


def draw_plot(name: str, document: Document, path: Path) -> None:
    """Write the PNG of a document that ``vedette bench NAME`` printed. Raises VedetteError when it cannot be written."""
    from matplotlib.figure import Figure

    panels = PANELS[name](document)
    figure = Figure(figsize=(6.4 * len(panels), 4.4), layout="constrained")
    for number, panel in enumerate(panels):
        panel(figure.add_subplot(1, len(panels), number + 1))
    figure.suptitle(f"vedette bench {name}")
    try:
        figure.savefig(path, format="png", dpi=110)
    except OSError as error:
        raise VedetteError(f"bench --plot: {path} cannot be written: {error.strerror}") from error


Panel = Callable[[Axes], None]


def _bars(title: str, values: Mapping[str, float | None], *, log: bool = False) -> Panel:
    """Horizontal bars, the first on top; None is left out."""

    def draw(axes: Axes) -> None:
        known = [(label, value) for label, value in values.items() if value is not None]
        bars = axes.barh([label for label, _ in known], [value for _, value in known])
        axes.bar_label(bars, fmt="%.4g", padding=2)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        if log:
            axes.set_xscale("log")
        axes.set_title(title)

    return draw


def _lines(title: str, x_label: str, lines: Mapping[str, Sequence[tuple[float, float]]], *, log: bool = False) -> Panel:
    """Lines of (x, y) by name."""

    def draw(axes: Axes) -> None:
        for label, points in lines.items():
            axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=label)
        if log:
            axes.set_xscale("log", base=2)
            axes.set_yscale("log", base=2)
        axes.set_xlabel(x_label)
        axes.set_title(title)
        axes.grid(alpha=0.3)
        if lines:
            axes.legend(fontsize="small")

    return draw


def _alerts(document: Document) -> list[Panel]:
    rows = {f"{row['mode']}, {row['subscribers']}": row for row in document["results"]}
    limit = {"fsyncs of the disk": document["raw_fsync"]["before"]["per_s"]}
    return [
        _bars("alerts a second, by subscribers", {n: r["alerts_per_s"] for n, r in rows.items()} | limit),
        _bars("delivery p99, ms", {n: r["delivery_p99_ms"] for n, r in rows.items()}, log=True),
    ]


def _budget(document: Document) -> list[Panel]:
    stages = document["stages"]
    return [
        _bars("median, microseconds", {n: row["p50_us"] or None for n, row in stages.items()}, log=True),
        _bars("share of the machine's limit", {n: row["share_of_limit"] for n, row in stages.items()}),
    ]


def _pipeline(document: Document) -> list[Panel]:
    loaded = document["at_80_percent"]
    return [
        _bars(f"cameras sustained at {document['clips']['fps']:g} fps", document["cameras_sustained"]),
        _bars("decoded to subscriber at 80 %, p95 ms", {n: row["latency_p95_ms"] for n, row in loaded.items()}),
        _bars("CPU-seconds a camera and hour", {n: row["cpu_s_per_camera_hour"] for n, row in loaded.items()}),
    ]


def _scale(document: Document) -> list[Panel]:
    def of(key: str) -> dict[str, list[tuple[float, float]]]:
        return {n: [(row["cameras"], row[key]) for row in s["rows"]] for n, s in document["scenes"].items()}

    return [
        _lines("processor cores in use", "cameras", of("cores"), log=True),
        _lines("CPU-seconds a camera and hour", "cameras", of("cpu_s_per_camera_hour")),
        _lines("memory, MB", "cameras", of("memory_mb"), log=True),
    ]


def _startup(document: Document) -> list[Panel]:
    steps = {step: step.removesuffix("_s").replace("_", " ") for step in document["steps"]}
    return [
        _bars(f"seconds to the {said}", {name: c["median"][step] for name, c in document["contenders"].items()})
        for step, said in steps.items()
    ]


def _temporal(document: Document) -> list[Panel]:
    panels: list[tuple[str, dict[str, float | None]]] = []
    for row in document.get("rows", []):
        key = f"T {row['T']}, B {row['B']}, {row['threads']} threads"
        if not panels or panels[-1][0] != key:
            panels.append((key, {}))
        panels[-1][1][row["case"]] = row["wall_ms"]
    panels.append(("RIFT", {f"{r['case']}, {r['cameras']} cameras": r["wall_ms"] for r in document.get("rift", [])}))
    return [_bars(f"{title}: milliseconds a step", values, log=True) for title, values in panels if values] or [
        _lines("one long stream", "step", {})
    ]


def _tracker(document: Document) -> list[Panel]:
    ours: dict[str, list[tuple[float, float]]] = {}
    for row in document["ours"]:
        name = f"vedette, {row['cameras']} cameras"
        ours.setdefault(name, []).append((row["objects"], row["ms_per_camera_frame_p50"]))
    peers = {
        name: [(float(objects), ms) for objects, ms in rows.items() if ms is not None]
        for name, rows in document["peers"].get("ms_per_frame_p50", {}).items()
    }
    return [_lines("milliseconds a camera-frame", "objects", ours | peers, log=True)]


def _transport(document: Document) -> list[Panel]:
    panels = []
    for size, entry in document["sizes"].items():
        kinds = entry["transports"]
        panels.append(_bars(f"{size}: frames a second, flat out", {n: k["flat_out"]["fps"] for n, k in kinds.items()}))
        paced = {n: k["paced_30_fps"]["p50_ms"] for n, k in kinds.items()}
        panels.append(_bars(f"{size}: p50 ms at 30 fps", paced))
    return panels


#: name of the measurement -> the panels of its picture; every measurement has a row
PANELS: Mapping[str, Callable[[Document], list[Panel]]] = {
    "alerts": _alerts, "budget": _budget, "pipeline": _pipeline, "scale": _scale, "startup": _startup,
    "temporal": _temporal, "tracker": _tracker, "transport": _transport,
}  # fmt: skip
