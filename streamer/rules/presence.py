"""Who is inside a zone: visits with hysteresis, shared by the rules about presence.

A visit begins when a confirmed track has been seen inside in two pictures running (one wrong box is not a
visitor). It ends when the object has been seen outside for `LEAVE_S` (a box that trembles on the edge does
not leave), or when nothing was seen of it for `LOST_S`. A new track that appears *inside*, where a
visitor was lost a moment ago, is that visitor under a new number: an occlusion is not a second visit. A
track that walks in from outside never is; and once both numbers are seen together they are two visitors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vedette.streamer.geometry import Point, points_in_polygon
from vedette.streamer.rules.view import Box, View, box_of

#: Seen outside for this long (and in two pictures) is left. Raise: steadier at the edge, later ends.
LEAVE_S = 0.5
#: Unseen for this long is gone. Raise: survives longer occlusions, later ends.
LOST_S = 3.0
#: Nothing is kept of a track that nobody has seen for this long.
FORGET_S = 60.0
#: Pictures running that must show a track inside before it counts.
SETTLE_PICTURES = 2
#: How far from where it was expected, in heights of its box, a lost visitor may reappear under a new number.
HANDOVER_HEIGHTS = 0.75
#: A box closer to the picture's border than this (in picture sizes) when it was lost has left through it.
BORDER = 0.02


@dataclass(slots=True)
class Visit:
    """One object's stay. tracks: its numbers, oldest first. peak: best score while inside.

    rearmed: was there before the rule began to watch. returned: was lost inside for longer than `LOST_S` and is
    seen again inside under the same number: it never left. earlier: had been raised before such a gap or reconnect.
    """

    serial: int
    tracks: list[int]
    label: str
    entered_s: float
    seen_s: float
    inside_s: float
    box: Box
    anchor: tuple[float, float]
    velocity: tuple[float, float]
    score: float
    peak: float
    rearmed: bool = False
    returned: bool = False
    earlier: bool = False
    raised: bool = False
    outside_s: float | None = None
    outside_pictures: int = 0

    @property
    def height(self) -> float:
        """Of the last box, in picture heights."""
        return max(self.box[3] - self.box[1], 1e-3)

    @property
    def inside(self) -> bool:
        """Whether the last picture that showed it showed it inside."""
        return self.outside_s is None

    def at_border(self) -> bool:
        """Whether the last box touches the picture's border."""
        x1, y1, x2, y2 = self.box
        return x1 <= BORDER or y1 <= BORDER or x2 >= 1 - BORDER or y2 >= 1 - BORDER


@dataclass(slots=True)
class Changes:
    """What one picture changed. left: visits and why (``left``, ``left the picture``, ``lost``)."""

    entered: list[Visit] = field(default_factory=list)
    renamed: list[Visit] = field(default_factory=list)
    left: list[tuple[Visit, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Known:
    """A track that is no visitor (yet)."""

    born_inside: bool
    last_s: float
    inside_pictures: int = 0
    since_s: float = 0.0


class Presence:
    """The visits of one zone (None: the whole picture) of one camera."""

    def __init__(self, polygon: Sequence[Point] | None) -> None:
        self._polygon = polygon
        self._visits: dict[int, Visit] = {}
        self._by_track: dict[int, Visit] = {}
        self._known: dict[int, _Known] = {}
        self._before: list[Visit] = []
        self._lost: dict[int, Visit] = {}
        self._serial = 0

    @property
    def visits(self) -> list[Visit]:
        """Everybody who is inside, oldest first."""
        return list(self._visits.values())

    def step(self, view: View) -> Changes:
        """Take one picture in and say who came, who was renamed, and who went."""
        changes = Changes()
        inside = self._inside(view)
        rows = np.flatnonzero(view.seen).tolist()
        for i in rows:
            self._split(view, i, rows, changes)
        for i in rows:
            visit = self._by_track.get(int(view.tracks.id[i]))
            if visit is not None:
                self._observe(visit, view, i, bool(inside[i]))
        for i in rows:
            if int(view.tracks.id[i]) not in self._by_track:
                self._consider(view, i, bool(inside[i]), changes)
        self._sweep(view.time_s, changes)
        return changes

    def drop(self) -> list[Visit]:
        """Forget everybody, and remember for a while where those stood that had been raised."""
        gone = self.visits
        self._before = [visit for visit in gone if visit.raised or visit.earlier]
        self._visits.clear()
        self._by_track.clear()
        self._known.clear()
        self._lost.clear()
        return gone

    def _inside(self, view: View) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        if self._polygon is None:
            return np.ones(len(view.tracks), np.bool_)
        return points_in_polygon(view.anchor, self._polygon)

    def _observe(self, visit: Visit, view: View, i: int, inside: bool) -> None:
        visit.seen_s = view.time_s
        visit.box, visit.score = box_of(view.tracks, i), float(view.tracks.score[i])
        visit.label = view.labels[int(view.tracks.label[i])]
        visit.anchor = (float(view.anchor[i, 0]), float(view.anchor[i, 1]))
        visit.velocity = (float(view.tracks.velocity_per_s[i, 0]), float(view.tracks.velocity_per_s[i, 1]))
        if inside:
            visit.inside_s, visit.outside_s, visit.outside_pictures = view.time_s, None, 0
            visit.peak = max(visit.peak, visit.score)
            return
        visit.outside_pictures += 1
        if visit.outside_s is None:
            visit.outside_s = view.time_s

    def _consider(self, view: View, i: int, inside: bool, changes: Changes) -> None:
        """A track that is no visitor: count the pictures that show it inside."""
        number = int(view.tracks.id[i])
        known = self._known.setdefault(number, _Known(born_inside=inside, last_s=view.time_s))
        known.last_s = view.time_s
        if not inside:
            known.inside_pictures, known.born_inside = 0, False
            return
        if known.inside_pictures == 0:
            known.since_s = view.time_s
        known.inside_pictures += 1
        if known.inside_pictures < SETTLE_PICTURES:
            return
        known.inside_pictures = 0
        born_s = view.time_s - float(view.tracks.age_s[i])
        same = self._lost_there(view, i, born_s) if known.born_inside else None
        if same is not None:
            same.tracks.append(number)
            self._by_track[number] = same
            self._observe(same, view, i, inside)
            changes.renamed.append(same)
            return
        visit = self._begin(view, i, known.since_s)
        lost = self._lost.pop(number, None)
        if known.born_inside and lost is not None:
            visit.returned, visit.earlier = True, lost.raised or lost.earlier
        elif known.born_inside and view.known_before(born_s):
            visit.rearmed = True
            visit.earlier = self._was_raised(view, i)
        changes.entered.append(visit)

    def _begin(self, view: View, i: int, since_s: float) -> Visit:
        number, score = int(view.tracks.id[i]), float(view.tracks.score[i])
        self._serial += 1
        visit = Visit(
            self._serial, [number], "", since_s, view.time_s, view.time_s, (0, 0, 0, 0), (0, 0), (0, 0), score, score
        )
        self._observe(visit, view, i, inside=True)
        self._visits[visit.serial] = self._by_track[number] = visit
        return visit

    def _lost_there(self, view: View, i: int, born_s: float) -> Visit | None:
        """The visitor unseen since before this track was born that was expected nearest to it, if near enough."""
        best, best_heights = None, HANDOVER_HEIGHTS
        for visit in self._visits.values():
            # ages are f32: born in the very picture that showed the visitor last is beside it, not after it
            if not visit.inside or visit.seen_s > born_s - 1e-3 or not _alike(visit, view, i):
                continue
            # a walker may have stopped behind the obstacle: half of the way is the least wrong guess
            gap_s = (view.time_s - visit.seen_s) / 2
            heights = _heights_apart(visit, view, i, gap_s)
            if heights <= best_heights:
                best, best_heights = visit, heights
        return best

    def _was_raised(self, view: View, i: int) -> bool:
        """Whether somebody who had been raised stood here before the reconnect."""
        for visit in self._before:
            if _alike(visit, view, i) and _heights_apart(visit, view, i, 0.0) <= HANDOVER_HEIGHTS:
                self._before.remove(visit)
                return True
        return False

    def _split(self, view: View, i: int, rows: list[int], changes: Changes) -> None:
        """Two numbers of one visit seen in one picture are two visitors: the younger gets a visit of its own."""
        number = int(view.tracks.id[i])
        visit = self._by_track.get(number)
        if visit is None or visit.tracks[0] == number:
            return
        older = visit.tracks[: visit.tracks.index(number)]
        if not any(int(view.tracks.id[j]) in older for j in rows):
            return
        visit.tracks.remove(number)
        changes.entered.append(self._begin(view, i, view.time_s))

    def _sweep(self, time_s: float, changes: Changes) -> None:
        """End the visits that are over, and forget tracks that nobody has seen for long."""
        for visit in self.visits:
            reason = None
            if visit.outside_s is not None and visit.outside_pictures >= 2 and time_s - visit.outside_s >= LEAVE_S:
                reason = "left"
            elif time_s - visit.seen_s > LOST_S:
                reason = "left the picture" if visit.at_border() else ("left" if not visit.inside else "lost")
            if reason is not None:
                del self._visits[visit.serial]
                changes.left.append((visit, reason))
                if reason == "lost":
                    self._lost.update(dict.fromkeys(visit.tracks, visit))
        if changes.left:
            self._by_track = {t: v for t, v in self._by_track.items() if v.serial in self._visits}
        if len(self._known) + len(self._lost) > 64:
            self._known = {t: k for t, k in self._known.items() if time_s - k.last_s <= FORGET_S}
            self._lost = {t: v for t, v in self._lost.items() if time_s - v.seen_s <= FORGET_S}


def _alike(visit: Visit, view: View, i: int) -> bool:
    return visit.label == view.labels[int(view.tracks.label[i])]


def _heights_apart(visit: Visit, view: View, i: int, ahead_s: float) -> float:
    """Distance of row ``i`` from where the visitor would be ``ahead_s`` later, in heights of its box."""
    x = visit.anchor[0] + visit.velocity[0] * ahead_s - float(view.anchor[i, 0])
    y = visit.anchor[1] + visit.velocity[1] * ahead_s - float(view.anchor[i, 1])
    return float(np.hypot(x * view.aspect, y)) / visit.height
