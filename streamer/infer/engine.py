"""The engines that a configuration asks for; the only place of the runtime that loads one."""

from __future__ import annotations

from collections.abc import Iterable

from vedette.engines.api import Engine, EngineFault, EngineSpec
from vedette.engines.load import load
from vedette.engines.temporal_load import DEFAULT_MODEL, open_evidence, resolve_temporal
from vedette.engines.temporal_spec import EMBEDDING_DIM
from vedette.engines.temporal_tracks import Evidence
from vedette.streamer.config import EngineSection
from vedette.streamer.config.schema import CameraDefaults
from vedette.streamer.errors import EngineError
from vedette.streamer.infer.learned import NOVELTY, EvidenceStage


def open_engine(section: EngineSection) -> Engine:
    """The detector, loaded and ready. Raises EngineError with what was found and the fix."""
    # the default size is no wish: a graph of fixed size brings its own
    size = None if section.size == EngineSection.model_fields["size"].default else section.size
    try:
        return load(
            section.detector,
            size=size,
            backend=section.backend,
            threads=section.threads,
            family=section.family,
            labels=section.labels,
        )
    except EngineFault as error:
        raise EngineError(str(error)) from error


def open_stage(
    section: EngineSection, spec: EngineSpec, cameras: Iterable[CameraDefaults], slots: int
) -> EvidenceStage | None:
    """The temporal engine for ``slots`` cameras, or None when nobody asks for learned evidence.

    Raises EngineError when a rule needs evidence that the model does not give, or the detector is no match for it.
    """
    needed = sorted({name for camera in cameras for rule in camera.rules for name in rule.learned()})
    if section.temporal is None and not needed:
        return None
    if spec.embedding_dim != EMBEDDING_DIM:
        raise EngineError(
            f"engine.temporal: needs a detector with {EMBEDDING_DIM} channels of appearance and scene tokens, got {spec.name} with "
            f"{spec.embedding_dim}; use vedette-nano, or take out the rules that need learned evidence: {needed}"
        )
    try:
        model = resolve_temporal(section.temporal or DEFAULT_MODEL)

        def open_for(count: int) -> Evidence:
            return open_evidence(model, count, backend=section.backend, window=section.window)

        stage = EvidenceStage(open_for, slots, everywhere=section.temporal is not None)
    except EngineFault as error:
        raise EngineError(str(error)) from error
    given = {*stage.names, *stage.scene_names, NOVELTY}
    missing = [name for name in needed if name not in given]
    if missing:
        raise EngineError(
            f"engine.temporal: rules need the learned evidence {missing}, got a model of {sorted(given)} ({model}); "
            "name another model or take the rules out"
        )
    return stage
