"""Every number of the tracker, in seconds and box sizes, with what it does and where it comes from."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

#: detector -> the scores at which a box is right with probability 0.1 (``score_low``) and 0.5 (``score_high``,
#: ``score_new``), from ``tools/calibrate_scores.py`` on COCO pictures. The defaults are the same two of YOLOX.
DETECTOR_SCORES = {"vedette-nano": (0.30, 0.45)}


@dataclass(frozen=True, slots=True)
class TrackerConfig:
    """The tracker's constants. The defaults are one set for every scene and every frame rate.

    Noise is in heights of the box concerned (horizontally in sqrt(width * height)), so a person near and a
    person far behave alike; rates are per second, so a dropped frame is a longer step and nothing else.
    Score thresholds are ByteTrack's, except that every trusted detection may start a track; `for_detector` has
    others. Motion and association were searched on half of the open sequences (``tools/eval_tracking.py``
    names them) at full, third and sixth frame rates, with the other half in view when ``score_new``,
    ``accel_std``, ``reach`` and ``min_overlap`` got their last values: no open sequence is a clean validation.
    """

    #: detections below are ignored. Raise: fewer rescues in occlusion, fewer ghosts. ByteTrack 0.1.
    score_low: float = 0.1
    #: detections from here on are trusted: they match at full gain and any track. ByteTrack 0.6.
    score_high: float = 0.6
    #: an unmatched detection from here on starts a tentative track. Raise: later starts, fewer ghosts. ByteTrack 0.7.
    score_new: float = 0.6

    #: std of a detected centre, in box sizes. Raise: smoother, slower to turn. SORT, ByteTrack: 1/20.
    measure_std: float = 0.06
    #: std of a detected width and height, in box sizes.
    measure_size_std: float = 0.05
    #: random walk of the centre, sizes per sqrt(s). ByteTrack's 1/20 a frame at 30 fps is 0.27.
    drift_std: float = 0.18
    #: random acceleration, sizes per s^1.5. Raise: velocity follows faster and is less sure. ByteTrack's 1/160 is 1.03.
    accel_std: float = 0.68
    #: the same two for width and height.
    size_drift_std: float = 0.11
    size_accel_std: float = 0.3
    #: what is known of a newborn's speed, sizes per second. Raise: its second detection moves it more. ByteTrack 1.9.
    birth_rate_std: float = 1.0

    #: boxes are compared with a margin on every side: this part of their size per second since the last picture ...
    #: Raise: more matches of fast objects at low frame rates, more swaps in crowds.
    reach: float = 0.5
    #: ... and at most this part.
    reach_most: float = 0.3
    #: least IoU of a match the moment after a sighting. Raise: fewer wrong matches, more broken tracks. SORT 0.3, BoT-SORT 0.2.
    min_overlap: float = 0.3
    #: the least IoU shrinks with this time constant since the last match: the longer the step, the farther one may be.
    overlap_fade_s: float = 0.6
    #: the same for detections below ``score_high``: a weak detection must fit better. ByteTrack, BoT-SORT 0.5.
    min_overlap_low: float = 0.6
    #: a weak detection matches only a track that was unseen for no longer than this. ByteTrack: seen in the last frame.
    low_unseen_s: float = 0.2
    #: penalty for a score unlike the track's last (Hybrid-SORT's confidence modelling). 0 switches it off.
    score_weight: float = 0.95
    #: time constant of the track's score. Raise: a longer memory of how well it is seen.
    score_s: float = 0.11
    #: gain of a trusted detection over a weak one; at 2 the trusted always go first (ByteTrack's two stages).
    high_bonus: float = 0.19
    #: gain for appearance: weight of the cosine of the embeddings, where both sides have one.
    appearance_weight: float = 0.5

    #: a tentative track is confirmed after this many detections ... ByteTrack 2.
    confirm_hits: int = 2
    #: ... spread over at least this time. Raise: later alerts, fewer ghosts.
    confirm_s: float = 0.03
    #: a tentative track dies when unseen for longer than this. Raise: weak detectors confirm more, ghosts too.
    tentative_lost_s: float = 0.0
    #: a confirmed track is forgotten when unseen for longer than this. ByteTrack: 30 frames = 1 s.
    lost_s: float = 1.2
    #: no track starts on a box that overlaps a matched track's more than this (track-aware start, TrackTrack).
    birth_overlap: float = 0.7

    #: a forgotten track can return by appearance for this long. Raise: longer absences, more look-alikes.
    remember_s: float = 20.0
    #: least cosine of such a return. Raise: fewer returns, fewer mix-ups.
    return_cosine: float = 0.75
    #: by how much the best look-alike must lead the second. Raise: fewer returns, fewer mix-ups.
    return_margin: float = 0.05
    #: how many forgotten tracks a camera remembers; bounds memory.
    remember_max: int = 256
    #: detections a camera may bring; the best are kept and the rest counted. Bounds time and memory.
    max_detections: int = 1000

    @classmethod
    def for_detector(cls, name: str) -> TrackerConfig:
        """The defaults with the score thresholds of a detector that was calibrated; the plain defaults for others."""
        known = DETECTOR_SCORES.get(name)
        return cls() if known is None else cls(score_low=known[0], score_high=known[1], score_new=known[1])

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
        for name in (
            "measure_std",
            "measure_size_std",
            "birth_rate_std",
            "min_overlap",
            "overlap_fade_s",
            "score_s",
            "max_detections",
        ):
            if getattr(self, name) == 0:
                raise ValueError(f"TrackerConfig.{name}: needs to be above 0, got 0")
