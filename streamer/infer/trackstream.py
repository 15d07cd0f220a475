"""The public track stream, one message a picture: schema ``vedette.tracks/1``. Confirmed tracks only, public ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vedette.streamer.alert import rfc3339
from vedette.streamer.infer.incidents import Moment
from vedette.streamer.types import Tracks, public_track_id

SCHEMA = "vedette.tracks/1"


def topic_of(camera: str) -> str:
    """The topic a camera's tracks are published under."""
    return f"track.{camera}"


def track_message(
    site: str,
    boot: str,
    moment: Moment,
    size: tuple[int, int],
    tracks: Tracks,
    labels: Sequence[str],
    names: Sequence[str] = (),
    scene: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """What one picture shows. size: width and height of the source in pixels; boxes are normalised to it.

    Boxes are clipped to the picture; a track that coasts outside of it is not told. names: columns of ``tracks.evidence``;
    what is known of it stands with its track, and of the scene with the picture; what is unknown is left out.
    """
    learned = _known(tracks, names)
    boxes = np.clip(tracks.xyxy, 0.0, 1.0)
    visible = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).tolist()
    return {
        "schema": SCHEMA,
        "site": site,
        "camera": moment.camera,
        "time": rfc3339(moment.wall_s),
        "mono_ns": moment.mono_ns,
        "epoch": moment.epoch,
        "seq": moment.seq,
        "width": size[0],
        "height": size[1],
        "tracks": [
            {
                "id": public_track_id(moment.camera, boot, int(tracks.id[i])),
                "label": labels[int(tracks.label[i])],
                "score": round(float(tracks.score[i]), 3),
                "box": [round(float(v), 4) for v in boxes[i]],
                "velocity_per_s": [round(float(v), 4) for v in tracks.velocity_per_s[i]],
                "age_s": round(float(tracks.age_s[i]), 3),
                "since_seen_s": round(float(tracks.since_seen_s[i]), 3),
                **returned_of(tracks, i),
                **({"evidence": learned[i]} if learned[i] else {}),
            }
            for i in visible
        ],
        **({"scene": {name: round(value, 4) for name, value in scene.items()}} if scene else {}),
    }


def _known(tracks: Tracks, names: Sequence[str]) -> list[dict[str, float]]:
    """The evidence of every track that is not NaN, by name."""
    if tracks.evidence is None or not names:
        return [{}] * len(tracks)
    return [
        {name: round(float(p), 4) for name, p in zip(names, row, strict=True) if not np.isnan(p)}
        for row in tracks.evidence
    ]


def returned_of(tracks: Tracks, i: int) -> dict[str, float]:
    """``returned_after_s`` in the picture in which object ``i`` was recognised and took its older id back, else nothing."""
    away_s = 0.0 if tracks.returned_s is None else float(tracks.returned_s[i])
    return {"returned_after_s": round(away_s, 3)} if away_s > 0 else {}
