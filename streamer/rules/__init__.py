"""Rules turn tracks into incidents: one file, one row here, one test, one commented stanza in configs/."""

from __future__ import annotations

from collections.abc import Mapping

from vedette.streamer.rules.abandoned import AbandonedConfig
from vedette.streamer.rules.base import RuleConfig
from vedette.streamer.rules.crowd import CrowdConfig
from vedette.streamer.rules.fall import FallConfig
from vedette.streamer.rules.fight import FightConfig
from vedette.streamer.rules.line import LineConfig
from vedette.streamer.rules.loiter import LoiterConfig
from vedette.streamer.rules.run import RunConfig
from vedette.streamer.rules.tamper import TamperConfig
from vedette.streamer.rules.zone import ZoneConfig

#: kind -> its configuration, which makes the rule
KINDS: Mapping[str, type[RuleConfig]] = {
    "zone": ZoneConfig,
    "loiter": LoiterConfig,
    "line": LineConfig,
    "crowd": CrowdConfig,
    "run": RunConfig,
    "abandoned": AbandonedConfig,
    "tamper": TamperConfig,
    "fight": FightConfig,
    "fall": FallConfig,
}
