"""The configuration: YAML in, frozen checked models out."""

from vedette.streamer.config.load import Loaded, load_config
from vedette.streamer.config.schema import (
    AlertsSection,
    CameraDefaults,
    CameraSection,
    Config,
    EngineSection,
    EvidenceSection,
    HttpSection,
)

__all__ = [
    "AlertsSection",
    "CameraDefaults",
    "CameraSection",
    "Config",
    "EngineSection",
    "EvidenceSection",
    "HttpSection",
    "Loaded",
    "load_config",
]
