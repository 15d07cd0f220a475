"""Annotated pictures of alerts: the snapshot of the moment, with everything drawn that was told about it."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2

from vedette.streamer.offline.annotate import Annotator

#: Track messages remembered, so that an alert that comes a little later finds its moment.
REMEMBERED = 256
#: Pictures written, at most; more alerts only replace ``latest.jpg``.
MOST_PICTURES = 40


class Gallery:
    """Writes ``<seq>-<rule>.jpg`` for alerts into ``folder``; ``written`` says which."""

    def __init__(self, folder: Path, store: Path, scene: Mapping[str, Any]) -> None:
        self.written: list[Path] = []
        self._folder, self._store = folder, store
        self._scene = scene
        self._tracks: OrderedDict[tuple[str, str], list[dict[str, Any]]] = OrderedDict()

    def take_tracks(self, message: Mapping[str, Any]) -> None:
        """Remember what was where."""
        self._tracks[message["camera"], message["time"]] = message["tracks"]
        if len(self._tracks) > REMEMBERED:
            self._tracks.popitem(last=False)

    def take_alert(self, alert: Mapping[str, Any]) -> Path | None:
        """Draw an alert that has a snapshot; where it was written, None when it has none or enough were."""
        name = alert["evidence"]["snapshot"]
        if alert["phase"] != "start" or name is None or len(self.written) >= MOST_PICTURES:
            return None
        picture = cv2.imread(str(self._store / name))
        if picture is None:
            return None
        annotator = Annotator(self._scene.get("zones", {}), self._scene.get("lines", {}))
        annotator.take(alert, 0.0)
        tracks = self._tracks.get((alert["camera"], alert["time"]), _only(alert))
        annotator.draw(picture, tracks, f"{alert['camera']}  {alert['time']}  alert {alert['seq']}", 0.0)
        rule = re.sub(r"[^A-Za-z0-9_-]+", "-", alert["rule"])
        path = self._folder / f"{alert['seq']:03d}-{rule}.jpg"
        cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
        self.written.append(path)
        return path


def _only(alert: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The alert's own box as a track, for when its track message was lost."""
    if alert["box"] is None or not alert["track_ids"]:
        return []
    return [{"id": alert["track_ids"][-1], "label": alert["label"] or "", "box": alert["box"], "since_seen_s": 0.0}]
