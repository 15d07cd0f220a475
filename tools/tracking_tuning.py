"""The peers at their best: which of their options are searched, on which sequences, and what was found.

``eval_tracking.py tune`` searches them for every set apart, which is more than we ask for ourselves (one configuration
for all sets and rates), on the sequences of SPLIT at their own frame rate, the first FRAMES of each. Every option
is varied on its own, then the winners are put together; the setting of highest HOTA among all of these is kept, the
defaults where none is higher. Options and ranges are those that the peers' papers and BoxMOT tune: thresholds of
the scores and of the overlap, how long a lost track waits. TUNED is what that found; ``compare`` runs those as
``NAME-tuned``.
"""

from __future__ import annotations

from typing import Any

#: set -> the sequences that peers are tuned on; where ours was tuned on any, the same
SPLIT = {
    "MOT17-val": ("MOT17-02", "MOT17-04"),
    "DanceTrack-val": tuple(f"dancetrack{n}" for n in ("0004", "0014", "0026", "0041", "0063", "0079", "0097")),
    "KITTI": ("0000", "0002", "0004", "0006", "0008", "0010"),
    "MOT15": ("Venice-2",),
}
#: of each sequence, so that DanceTrack takes no longer than the others
FRAMES = 200
#: peer -> option -> values, the default first
GRID: dict[str, dict[str, tuple[float, ...]]] = {
    "sort": {
        "track_activation_threshold": (0.25, 0.4, 0.6),
        "minimum_consecutive_frames": (3, 2, 1),
        "minimum_iou_threshold": (0.3, 0.2, 0.1),
        "lost_track_buffer": (30, 60),
    },
    "bytetrack": {
        "high_conf_det_threshold": (0.6, 0.5, 0.4),
        "track_activation_threshold": (0.7, 0.6, 0.5, 0.4),
        "minimum_iou_threshold": (0.1, 0.2, 0.3),
        "lost_track_buffer": (30, 60),
    },
    "ocsort": {
        "high_conf_det_threshold": (0.6, 0.5, 0.4, 0.3),
        "minimum_iou_threshold": (0.3, 0.2, 0.1),
        "direction_consistency_weight": (0.2, 0.0, 0.4),
        "minimum_consecutive_frames": (3, 2, 1),
        "lost_track_buffer": (30, 60),
    },
    "botsort": {
        "high_conf_det_threshold": (0.6, 0.5, 0.4),
        "track_activation_threshold": (0.7, 0.6, 0.5, 0.4),
        "minimum_iou_threshold_first_assoc": (0.2, 0.1, 0.3),
        "minimum_iou_threshold_second_assoc": (0.5, 0.4, 0.6),
        "lost_track_buffer": (30, 60),
    },
}
#: set -> peer -> the options that beat their defaults
TUNED: dict[str, dict[str, dict[str, float]]] = {
    "MOT17-val": {
        "sort": {"track_activation_threshold": 0.6},
        "bytetrack": {"minimum_iou_threshold": 0.3},
        "ocsort": {"minimum_consecutive_frames": 1},
        "botsort": {"minimum_iou_threshold_second_assoc": 0.6, "lost_track_buffer": 60},
    },
    "KITTI": {
        "sort": {"minimum_consecutive_frames": 2},
        "bytetrack": {"track_activation_threshold": 0.6},
        "ocsort": {
            "high_conf_det_threshold": 0.4,
            "minimum_iou_threshold": 0.1,
            "direction_consistency_weight": 0.4,
            "minimum_consecutive_frames": 1,
        },
        "botsort": {
            "high_conf_det_threshold": 0.5,
            "track_activation_threshold": 0.6,
            "minimum_iou_threshold_first_assoc": 0.1,
            "minimum_iou_threshold_second_assoc": 0.4,
        },
    },
    "MOT15": {
        "sort": {"minimum_iou_threshold": 0.2},
        "bytetrack": {"high_conf_det_threshold": 0.5},
        "ocsort": {"minimum_consecutive_frames": 2},
        "botsort": {"minimum_iou_threshold_first_assoc": 0.1},
    },
}


def around(peer: str) -> list[dict[str, float]]:
    """The defaults of a peer, {}, and every setting that differs from them in one option."""
    return [{}, *({option: value} for option, values in GRID[peer].items() for value in values[1:])]


def together(hota: list[tuple[dict[str, float], float]]) -> dict[str, float]:
    """Of each option the value that was best on its own, where that beat the defaults. hota: of `around`'s settings."""
    (_, least), *others = hota
    best: dict[str, float] = {}
    highest: dict[str, float] = {}
    for setting, reached in others:
        ((option, value),) = setting.items()
        if reached > highest.get(option, least):
            highest[option], best[option] = reached, value
    return best


def variants_of(set_name: str, peers: list[str]) -> dict[str, dict[str, Any]]:
    """NAME-tuned -> what ``tracking_peers.py`` takes as a variant, for the peers that tuning made better on a set."""
    found = TUNED.get(set_name, {})
    return {f"{peer}-tuned": {"base": peer, **found[peer]} for peer in peers if found.get(peer)}
