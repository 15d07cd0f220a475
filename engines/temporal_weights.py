"""Parameters of a RIFT model as a plain ``.npz`` (no pickle), beside the graph that was exported from them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import EngineFault
from vedette.engines.temporal_spec import RiftConfig, TemporalSpec, save_graph

Array = NDArray[Any]


def weights_path(graph: Path) -> Path:
    """``x.onnx`` -> ``x.npz``."""
    return graph.with_suffix(".npz")


def load_weights(path: Path) -> dict[str, Array]:
    """Parameters by name; EngineFault when the file is not a plain npz."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError) as e:
        raise EngineFault(f"{path}: not readable as parameters, got {e}; needs a .npz without pickled objects") from e


def weights_of(graph: Path) -> dict[str, Array]:
    """The parameters a graph was exported from."""
    return load_weights(weights_path(graph))


def save_weights(path: Path, weights: dict[str, Array]) -> None:
    """Write atomically, float32."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    arrays: dict[str, Any] = {k: v.astype(np.float32) for k, v in weights.items()}
    np.savez(temporary, **arrays)
    temporary.replace(path)


def export_file(out: Path, weights: Path | None, config: dict[str, Any], flavour: str, precision: str) -> TemporalSpec:
    """Graph, sidecar and parameters side by side; without ``weights`` random ones, marked untrained.

    Parameters that do not fit ``config`` are refused with their names.
    """
    import torch

    from vedette.engines.models.rift import RIFT
    from vedette.engines.models.rift_export import export_rift

    known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    torch.manual_seed(0)
    model = RIFT(RiftConfig(**known))
    if weights is not None:
        state = {k: torch.from_numpy(v.copy()) for k, v in load_weights(weights).items()}
        try:
            model.load_state_dict(state)
        except RuntimeError as e:
            raise EngineFault(
                f"{weights}: parameters do not fit the config, got {e}; give the config they were trained with"
            ) from e
    graph, spec = export_rift(model.config, model.weights(), flavour, precision, trained=weights is not None)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_weights(weights_path(out), model.weights())
    save_graph(out, graph, spec)
    return spec
