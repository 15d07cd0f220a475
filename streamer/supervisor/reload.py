"""What a new configuration asks of a running daemon: the smallest set of restarts that obeys it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vedette.streamer.config import CameraSection, Config
from vedette.streamer.config.schema import AlertsSection, EvidenceSection, HttpSection

#: Keys of a camera that its capture process obeys; the others are infer's and the supervisor's.
CAPTURE_KEYS = ("source", "fps", "transport", "loop", "pace", "frozen_after", "privacy", "evidence")
#: Keys that only a new start can change, and why.
FIXED = {"alerts.store": "the store's lock, its stream and the run folder belong to this life"}


@dataclass(frozen=True, slots=True)
class Changes:
    """added, removed, restarted: cameras. infer: what happens to it. hub: whether it restarts."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    restarted: tuple[str, ...]
    infer: Literal["keep", "reload", "restart"]
    hub: bool

    def __str__(self) -> str:
        parts = [f"{what} {', '.join(names)}" for what, names in self._cameras() if names]
        parts += [f"infer {self.infer}s"] * (self.infer != "keep") + ["hub restarts"] * self.hub
        return "; ".join(parts) or "nothing changed"

    def _cameras(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return ("added", self.added), ("removed", self.removed), ("restarting", self.restarted)


def fixed_faults(old: Config, new: Config) -> list[tuple[tuple[str, ...], str, object]]:
    """(key, rule, value) of each change that a reload cannot make."""
    if old.alerts.store == new.alerts.store:
        return []
    rule = f"cannot change while running ({FIXED['alerts.store']}); restart vedette instead"
    return [(("alerts", "store"), rule, new.alerts.store)]


def changes(old: Config, new: Config) -> Changes:
    """What must happen so that a daemon that runs ``old`` runs ``new``."""
    added = tuple(name for name in new.cameras if name not in old.cameras)
    removed = tuple(name for name in old.cameras if name not in new.cameras)
    kept = [name for name in new.cameras if name in old.cameras]
    resized = old.engine.input_hw != new.engine.input_hw
    restarted = tuple(
        n for n in kept if resized or _seen_by_capture(old.cameras[n]) != _seen_by_capture(new.cameras[n])
    )
    # the site is part of every incident's id and of every alert
    site = old.site != new.site
    infer: Literal["keep", "reload", "restart"] = "keep"
    if site or old.engine != new.engine:
        infer = "restart"
    elif old.cameras != new.cameras or old.defaults != new.defaults:
        infer = "reload"
    hub = site or old.alerts != new.alerts or old.http != new.http
    return Changes(added, removed, restarted, infer, hub)


def _seen_by_capture(camera: CameraSection) -> dict[str, object]:
    return camera.model_dump(include=set(CAPTURE_KEYS))


def capture_view(config: Config, name: str) -> Config:
    """The part of the configuration that one capture process needs: it reads what strangers send, so it must not
    hold another camera's password or a webhook's token."""
    camera = config.cameras[name]
    slim = camera.model_copy(update={"rules": [], "zones": {}, "lines": {}})
    return config.model_copy(
        update={
            "cameras": {name: slim},
            "defaults": type(config.defaults)(evidence=EvidenceSection()),
            "alerts": AlertsSection(store=config.alerts.store),
            "http": HttpSection(listen=None),
        }
    )


def infer_view(config: Config) -> Config:
    """The part of the configuration that the infer process needs: no camera's address, no sink, no token."""
    return config.model_copy(
        update={
            "cameras": {name: camera.model_copy(update={"source": "-"}) for name, camera in config.cameras.items()},
            "alerts": AlertsSection(store=config.alerts.store),
            "http": HttpSection(listen=None),
        }
    )
