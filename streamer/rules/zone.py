"""Somebody enters or leaves a zone."""

from __future__ import annotations

from typing import Literal

from vedette.streamer.rules.base import RuleConfig


class ZoneConfig(RuleConfig):
    """zone: which zone of the camera. on: what raises the alert."""

    kind: Literal["zone"] = "zone"
    zone: str
    on: Literal["enter", "leave"] = "enter"

    def place(self) -> dict[Literal["zone", "line"], str]:
        return {"zone": self.zone}
