"""Rules turn tracks into incidents: one file, one row here, one test, one commented stanza in configs/."""

from __future__ import annotations

from collections.abc import Mapping

from vedette.streamer.rules.base import RuleConfig
from vedette.streamer.rules.zone import ZoneConfig

#: kind -> its configuration
KINDS: Mapping[str, type[RuleConfig]] = {
    "zone": ZoneConfig,
}
