"""Every number of the tracker, in seconds and box heights, with what it does and where it comes from."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class TrackerConfig:
    """The tracker's constants. The defaults are one set for every scene and every frame rate.

    Lengths are in heights of the box concerned, so a person near and a person far behave alike; rates
    are per second, so a dropped frame is a longer step and nothing else.
    """

    #: detections below are ignored. Raise: fewer rescues in occlusion, fewer ghosts. ByteTrack 0.1.
    score_low: float = 0.1
    #: detections from here on are trusted: they match first and at full gain. ByteTrack 0.6.
    score_high: float = 0.6
    #: an unmatched detection from here on starts a tentative track. Raise: later starts, fewer ghosts. ByteTrack 0.7.
    score_new: float = 0.7

    #: std of a detected centre, in box heights. Raise: smoother, slower to turn. SORT, ByteTrack: 1/20.
    measure_std: float = 0.05
    #: std of a detected width and height, in box heights.
    measure_size_std: float = 0.05
    #: random walk of the centre, heights per sqrt(s). ByteTrack's h/20 a frame at 30 fps = 0.27.
    drift_std: float = 0.27
    #: random acceleration, heights per s^1.5. Raise: velocity follows faster, prediction is less sure. ByteTrack's h/160 = 1.03.
    accel_std: float = 1.03
    #: the same two for width and height.
    size_drift_std: float = 0.27
    size_accel_std: float = 0.3
    #: what is known of a newborn's speed, heights per second. Raise: the second detection may be farther away. ByteTrack 1.9.
    birth_rate_std: float = 1.9
    #: rates fade with this time constant while nothing is seen. Raise: straighter coasting.
    coast_s: float = 1.0

    #: least overlap (expanded by the prediction's uncertainty) of a match. Raise: fewer wrong matches, more broken tracks.
    min_overlap: float = 0.2
    #: the same for detections below ``score_high``: a weak detection must fit better.
    min_overlap_low: float = 0.4
    #: boxes grow by this many std of the predicted centre before they are compared (buffered IoU, C-BIoU).
    expand: float = 1.0
    #: gain for agreeing with the track's course (observation-centric momentum, OC-SORT). 0 switches it off.
    course_weight: float = 0.2
    #: time constant of the course. Raise: steadier, later to turn. OC-SORT: 3 frames = 0.1 s.
    course_s: float = 0.1
    #: penalty for a score unlike the one expected of the track (TCM, Hybrid-SORT). 0 switches it off.
    score_weight: float = 0.0
    #: gain of a trusted detection over a weak one; at 1 the trusted always go first (ByteTrack's two stages).
    high_bonus: float = 1.0
    #: gain of a confirmed track over a tentative one.
    confirmed_bonus: float = 0.5
    #: gain for appearance: weight of the cosine of the embeddings, where both sides have one.
    appearance_weight: float = 0.5

    #: a tentative track is confirmed after this many detections ...
    confirm_hits: int = 3
    #: ... spread over at least this time. Raise: later alerts, fewer ghosts.
    confirm_s: float = 0.05
    #: a tentative track dies when unseen for longer than this.
    tentative_lost_s: float = 0.0
    #: a confirmed track is forgotten when unseen for longer than this. ByteTrack: 30 frames = 1 s.
    lost_s: float = 1.0
    #: no track starts on a box that overlaps a matched track's more than this (track-aware start, TrackTrack).
    birth_overlap: float = 0.8

    #: a forgotten confirmed track can return by appearance for this long. Raise: longer absences, more look-alikes.
    remember_s: float = 20.0
    #: least cosine of such a return.
    return_cosine: float = 0.75
    #: how many forgotten tracks a camera remembers.
    remember_max: int = 256
    #: detections a camera may bring; the best are kept and the rest counted. Bounds time and memory.
    max_detections: int = 1000

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"TrackerConfig.{f.name}: needs a finite number from 0 on, got {value!r}")
        if not self.score_low <= self.score_high <= 1 or not self.score_low <= self.score_new <= 1:
            raise ValueError(
                "TrackerConfig: needs score_low <= score_high, score_new <= 1, "
                f"got {self.score_low}, {self.score_high}, {self.score_new}"
            )
        for name in ("measure_std", "measure_size_std", "birth_rate_std", "coast_s", "course_s", "max_detections"):
            if getattr(self, name) == 0:
                raise ValueError(f"TrackerConfig.{name}: needs to be above 0, got 0")
