"""The engine that a configuration asks for; the only place of the runtime that loads one."""

from __future__ import annotations

from vedette.engines.api import Engine, EngineFault
from vedette.engines.load import load
from vedette.streamer.config import EngineSection
from vedette.streamer.errors import EngineError


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
