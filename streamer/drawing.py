"""What is drawn into pictures for people: labels, and why an alert was told.

Works from the public alert alone, so that whoever has an alert and its snapshot can draw it, at any time later; the
picture that was kept stays as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
Colour = tuple[int, int, int]

ALARM: Colour = (48, 48, 230)
LINE: Colour = (60, 220, 250)
WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
#: Against the alert.
COLD: Colour = (230, 150, 60)
#: Snapshots with a longer side are not drawn into: a few bytes may claim gigabytes.
LARGEST_PX = 8192
#: Of drawn pictures, JPEG's 0..100.
QUALITY = 90
#: The part that counts most hides this much of the picture.
HEAT_OPACITY = 0.55
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def unit_of(picture: U8) -> float:
    """The size of one step in pixels: what is drawn is as readable at 4K as at 320x240."""
    return max(1.0, float(min(picture.shape[:2])) / 480)


def draw_label(picture: U8, text: str, at: tuple[int, int], scale: float, ink: Colour, paper: Colour) -> None:
    """Text on a filled box whose lower left corner is near ``at``, kept inside the picture."""
    thickness = max(1, round(scale * 1.6))
    (w, h), below = cv2.getTextSize(text, _FONT, scale, thickness)
    x = max(0, min(at[0], picture.shape[1] - w - 4))
    y = max(h + 2, min(at[1], picture.shape[0] - below))
    cv2.rectangle(picture, (x - 2, y - h - 2), (x + w + 2, y + below), paper, cv2.FILLED)
    cv2.putText(picture, text, (x, y), _FONT, scale, ink, thickness, cv2.LINE_AA)


def drawn_snapshot(jpeg: bytes, alert: Mapping[str, Any]) -> bytes:
    """The snapshot of an alert with the alert drawn in, as JPEG. Raises ValueError when it is no picture, or one too large."""
    picture = None
    if max(jpeg_size(jpeg)) <= LARGEST_PX:
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"drawing: the snapshot is no picture of at most {LARGEST_PX} px that can be decoded")
    shown = np.asarray(picture, np.uint8)
    draw_alert(shown, alert)
    return cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """Width and height that a JPEG's head claims, (0, 0) where it claims none; nothing is decoded."""
    at = 2
    while at + 9 <= len(jpeg) and jpeg[at] == 0xFF:
        marker = jpeg[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame, not tables
            return int.from_bytes(jpeg[at + 7 : at + 9]), int.from_bytes(jpeg[at + 5 : at + 7])
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4])
    return 0, 0


def draw_alert(picture: U8, alert: Mapping[str, Any]) -> None:
    """Draw an alert into its snapshot u8 [H,W,3], in place: its box, its rule, its checks, and what `draw_reasons` draws."""
    unit, (height, width) = unit_of(picture), picture.shape[:2]
    draw_reasons(picture, alert["explain"])
    if alert["box"] is not None:
        x1, y1, x2, y2 = (round(v * s) for v, s in zip(alert["box"], (width, height) * 2, strict=True))
        cv2.rectangle(picture, (x1, y1), (x2, y2), ALARM, max(1, round(2 * unit)), cv2.LINE_AA)
    lines = [f"{alert['rule']}  {alert['phase']}  {alert['time']}", *check_lines(alert["explain"])]
    for row, text in enumerate(lines):
        paper = ALARM if row == 0 else BLACK
        draw_label(picture, text, (round(8 * unit), round((18 + 18 * row) * unit)), 0.42 * unit, WHITE, paper)


def check_lines(explain: Mapping[str, Any]) -> list[str]:
    """The checks in words: ``probability of a fight .81, at least .7``."""
    return [
        f"{check['what']} {'unknown' if check['value'] is None else format(check['value'], 'g')}, "
        f"{check['is']} {check['threshold']:g} {check['unit']}".rstrip()
        for check in explain.get("checks", ())
    ]


def draw_reasons(picture: U8, explain: Mapping[str, Any]) -> None:
    """Draw what the evidence of an alert goes by: warm where the picture speaks for it and cold where against, the way somebody
    went, and a strip of the past half seconds, up for it and down against it. What the alert does not say is not drawn."""
    if explain.get("attention_map"):
        draw_heat(picture, explain["attention_map"])
    if explain.get("path"):
        _draw_path(picture, [point[1:] for point in explain["path"]])
    if explain.get("attention_s"):
        _draw_strip(picture, explain["attention_s"])


def draw_heat(picture: U8, rows: Sequence[Sequence[float]]) -> None:
    """Tint the parts of the picture, warm where their share is above 0 and cold where it is below, the largest most."""
    heat = np.asarray(rows, np.float32)
    most = np.abs(heat).max(initial=0)
    if heat.ndim != 2 or not most > 0:
        return
    height, width = picture.shape[:2]
    smooth = cv2.resize(heat / most, (width, height), interpolation=cv2.INTER_LINEAR)
    share = (HEAT_OPACITY * np.sqrt(np.abs(smooth)))[..., None]
    colours = np.where(smooth[..., None] > 0, np.array(ALARM, np.float32), np.array(COLD, np.float32))
    picture[:] = (picture * (1 - share) + colours * share).astype(np.uint8)


def _draw_path(picture: U8, points: Sequence[Sequence[float]]) -> None:
    size = np.array([picture.shape[1], picture.shape[0]])
    corners = np.round(np.asarray(points, np.float64) * size).astype(np.int32)
    width = max(1, round(2 * unit_of(picture)))
    cv2.polylines(picture, [corners], False, LINE, width, cv2.LINE_AA)
    for x, y in corners.tolist():
        cv2.circle(picture, (x, y), 2 * width, LINE, cv2.FILLED, cv2.LINE_AA)


def _draw_strip(picture: U8, shares: Sequence[Sequence[float]]) -> None:
    """Bars in the lower right corner, oldest left."""
    unit, (height, width) = unit_of(picture), picture.shape[:2]
    bar, tall = max(3, round(9 * unit)), max(10, round(34 * unit))
    shown = list(shares)[-max(1, width // 2 // bar) :]
    most = max(abs(share) for _, share in shown)
    left, middle = width - bar * len(shown) - round(6 * unit), height - tall - round(4 * unit)
    panel = picture[max(0, middle - tall) :, max(0, left - 3) :]
    panel[:] = panel // 3
    for k, (_, share) in enumerate(shown):
        tip = middle - round(tall * share / most) if most > 0 else middle
        colour = ALARM if share > 0 else COLD
        cv2.rectangle(picture, (left + k * bar, middle), (left + (k + 1) * bar - 2, tip), colour, cv2.FILLED)
    cv2.line(picture, (left, middle), (width, middle), WHITE, 1)
    draw_label(picture, f"{shown[0][0]:g} s ago", (left, height - round(3 * unit)), 0.3 * unit, WHITE, BLACK)
