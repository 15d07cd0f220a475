"""Draws what Vedette saw into a picture: zones, lines, tracks with their numbers, and what was raised lately.

Works from the public messages (``vedette.tracks/1``, ``vedette.alert/1``), so whatever a subscriber got can be
drawn. Sizes follow the picture, so that text is as readable at 4K as at 320x240.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vedette.streamer.drawing import ALARM, BLACK, LINE, U8, WHITE, Colour, draw_label, draw_reasons, unit_of
from vedette.streamer.geometry import Point

#: An alert stays in the banner for this long, seconds.
BANNER_S = 3.0
#: What the evidence of the latest alert goes by is about its own picture; it stays for this long, seconds.
REASONS_S = 1.0
#: A track that nobody has seen for longer is a memory, not something to point at, seconds.
COASTING_S = 0.5
#: Lines of the banner, at most.
BANNER_LINES = 4
ZONE: Colour = (230, 180, 40)


class Annotator:
    """Draws the pictures of one camera, in order; remembers what is open and what was raised lately."""

    def __init__(self, zones: Mapping[str, Sequence[Point]], lines: Mapping[str, Sequence[Point]]) -> None:
        self._zones = {name: np.asarray(points, np.float64) for name, points in zones.items()}
        self._lines = {name: np.asarray(points, np.float64) for name, points in lines.items()}
        self._banner: deque[tuple[float, str]] = deque(maxlen=BANNER_LINES)
        self._open: dict[str, tuple[str, ...]] = {}
        self._reasons: tuple[float, Mapping[str, Any]] | None = None

    def take(self, alert: Mapping[str, Any], time_s: float) -> None:
        """Remember an alert. time_s: seconds on the clock that `draw` gets."""
        if alert["phase"] == "end":
            self._open.pop(alert["id"], None)
        elif alert["phase"] == "start" or alert["id"] in self._open:  # a clip may be told after the end
            self._open[alert["id"]] = tuple(alert["track_ids"])
        if alert["phase"] == "start":
            who = ", ".join(short_id(track) for track in alert["track_ids"])
            self._banner.append((time_s, f"{alert['rule']}: {alert['label'] or 'several'} {who}"))
            self._reasons = time_s, alert.get("explain", {})

    def draw(self, picture: U8, tracks: Sequence[Mapping[str, Any]], caption: str, time_s: float) -> None:
        """Draw everything into u8 [H,W,3] in place. tracks: entries of a track message. caption: bottom left."""
        unit = unit_of(picture)
        self._draw_places(picture, unit)
        if self._reasons is not None and 0 <= time_s - self._reasons[0] <= REASONS_S:
            draw_reasons(picture, self._reasons[1])
        alarmed = {track for tracks_of in self._open.values() for track in tracks_of}
        for track in tracks:
            if track.get("since_seen_s", 0) > COASTING_S:
                continue
            _draw_track(picture, track, track["id"] in alarmed, unit)
        shown = [text for since_s, text in self._banner if 0 <= time_s - since_s <= BANNER_S]
        for row, text in enumerate(shown):
            draw_label(picture, text, (round(8 * unit), round((24 + 24 * row) * unit)), 0.55 * unit, WHITE, ALARM)
        draw_label(picture, caption, (round(8 * unit), picture.shape[0] - round(8 * unit)), 0.45 * unit, WHITE, BLACK)

    def _draw_places(self, picture: U8, unit: float) -> None:
        size = np.array([picture.shape[1], picture.shape[0]])
        width = max(1, round(unit))
        if self._zones:
            tinted = picture.copy()
            for points in self._zones.values():
                cv2.fillPoly(tinted, [np.round(points * size).astype(np.int32)], ZONE)
            cv2.addWeighted(tinted, 0.18, picture, 0.82, 0, dst=picture)
        for name, points in self._zones.items():
            corners = np.round(points * size).astype(np.int32)
            cv2.polylines(picture, [corners], True, ZONE, width, cv2.LINE_AA)
            corner = corners[np.argmin(corners.sum(axis=1))]
            draw_label(picture, name, (int(corner[0]) + 4, int(corner[1]) + round(18 * unit)), 0.45 * unit, BLACK, ZONE)
        for name, points in self._lines.items():
            _draw_line(picture, name, points * size, unit)


def short_id(track_id: str) -> str:
    """``dock/1f0c/17`` -> ``17``: what a person can read out."""
    return track_id.rpartition("/")[2]


def colour_of(track_id: str) -> Colour:
    """The same bright colour for the same track, in every picture and every run; red is kept for alarms."""
    hue = 15 + zlib.crc32(track_id.encode()) % 150
    b, g, r = cv2.cvtColor(np.array([[[hue, 200, 255]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return int(b), int(g), int(r)


def _draw_track(picture: U8, track: Mapping[str, Any], alarmed: bool, unit: float) -> None:
    h, w = picture.shape[:2]
    x1, y1, x2, y2 = (round(v * s) for v, s in zip(track["box"], (w, h, w, h), strict=True))
    colour = ALARM if alarmed else colour_of(track["id"])
    width = max(1, round((3 if alarmed else 1.5) * unit))
    coasting = track.get("since_seen_s", 0) > 0
    cv2.rectangle(picture, (x1, y1), (x2, y2), colour, 1 if coasting else width, cv2.LINE_AA)
    text = f"{track['label']} {short_id(track['id'])}" + ("?" if coasting else "")
    draw_label(picture, text, (x1, max(round(12 * unit), y1 - round(3 * unit))), 0.4 * unit, BLACK, colour)


def _draw_line(picture: U8, name: str, points: NDArray[np.float64], unit: float) -> None:
    """The line, and an arrow that shows which way is ``in`` (to the right of the walk from first to second point)."""
    (ax, ay), (bx, by) = points.tolist()
    width = max(1, round(2 * unit))
    cv2.line(picture, (round(ax), round(ay)), (round(bx), round(by)), LINE, width, cv2.LINE_AA)
    length = max(1.0, float(np.hypot(bx - ax, by - ay)))
    mid = ((ax + bx) / 2, (ay + by) / 2)
    tip = (mid[0] - (by - ay) / length * 28 * unit, mid[1] + (bx - ax) / length * 28 * unit)
    start, stop = (round(mid[0]), round(mid[1])), (round(tip[0]), round(tip[1]))
    cv2.arrowedLine(picture, start, stop, LINE, width, cv2.LINE_AA, tipLength=0.4)
    draw_label(picture, f"{name} in", (stop[0] + 4, stop[1]), 0.45 * unit, BLACK, LINE)
