"""Where alerts go besides subscribers: one file, one row here, one test, one commented stanza in configs/."""

from __future__ import annotations

from collections.abc import Mapping

from vedette.streamer.sinks.base import SinkConfig
from vedette.streamer.sinks.jsonl import JsonlConfig
from vedette.streamer.sinks.mqtt import MqttConfig
from vedette.streamer.sinks.webhook import WebhookConfig

#: kind -> its configuration
KINDS: Mapping[str, type[SinkConfig]] = {
    "jsonl": JsonlConfig,
    "mqtt": MqttConfig,
    "webhook": WebhookConfig,
}
