"""Things that have come to stand still, and who put them there: the memory behind the rule `abandoned`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vedette.streamer.geometry import Point, points_in_polygon
from vedette.streamer.picturestats import StaticBlob
from vedette.streamer.rules.view import Box, View, box_of

#: Before this much of a rule's life nothing is new: it was there from the start, seconds.
START_S = 6.0
#: A bag stands still when its centre has moved by less than this share of its size for so long, seconds.
STILL_SHARE, STILL_S = 0.35, 2.0
#: How long before a thing was noticed its owner may have been beside it, seconds.
LOOK_BACK_S = 6.0
#: Who puts something down stands no farther from it, own heights, and it is no lower than this share of them.
ARM, LEAST = 0.6, 0.12
#: A blob whose outline has come by less than this share is no new thing, and by less than that a hole: it shows that a thing is gone.
ADDED, HOLE = 0.5, 0.4
#: A blob is a thing when its box has been the same (intersection over union) for so long, seconds; a flatter one is a shadow or a tape.
FIRM, FIRM_S, FLATTEST = 0.5, 2.0, 2.0
#: Who has never gone farther from where they were first seen, own heights, for so long is planted there: perhaps no person
#: at all but the thing, so that what is `FIRM` within their box for longer counts, seconds.
WALKED, PLANTED_S, FIRM_WITHIN_S = 0.5, 2.0, 4.0
#: Overlap (of the smaller box) that makes a blob part of somebody, or two candidates one thing.
PART, SAME = 0.3, 0.4
#: Positions of people are remembered this often, seconds.
TRAIL_EVERY_S = 0.5


#: Somebody whose box is about to reach the picture's border, in this time, is leaving through it; picture sizes and seconds.
BORDER, LEAVES_S = 0.02, 0.5

Row = tuple[int, float, float, float, float, bool]


@dataclass(slots=True)
class Thing:
    """Something that stands still. since_s: since when; seen_s: last seen, or hidden by somebody who stands before it;
    shown_s: really seen.

    seen_as: ``bag`` (detected) or ``unknown`` (static foreground). owner: track that put it down, None when nobody was
    there. score: of the detection, or how clearly the blob's outline is in the picture.
    """

    number: int
    box: Box
    since_s: float
    seen_s: float
    seen_as: str
    label: str | None
    score: float
    owner: int | None = None
    owner_height: float = 0.0
    tracks: tuple[int, ...] = ()
    shown_s: float = 0.0

    @property
    def height(self) -> float:
        """Of its box, picture heights."""
        return max(1e-3, self.box[3] - self.box[1])

    def fits(self, owner_height: float, largest: float) -> bool:
        """Whether somebody so tall can have put it down: neither a scrap nor too large."""
        return LEAST * owner_height <= self.height <= largest * owner_height

    def distance(self, view: View, i: int) -> float:
        """From its foot to the nearest point of the foot line of row ``i``, picture heights."""
        x1, _, x2, y2 = (float(v) for v in view.tracks.xyxy[i])
        left, _, right, foot = self.box
        gap = max(0.0, max(x1, left) - min(x2, right)) * view.aspect
        return float(np.hypot(gap, y2 - foot))


@dataclass(slots=True)
class _Bag:
    """A bag's track until it has stood still."""

    anchor: tuple[float, float]
    since_s: float
    last_s: float


@dataclass(slots=True)
class _Blob:
    """A blob until it is a thing. first_s: seen first; firm_s: since when its box is ``box``; seen_s: last."""

    box: Box
    first_s: float
    firm_s: float
    seen_s: float


@dataclass(slots=True)
class _Walk:
    """How far a person's track has gone. start: first foot point, x in picture heights. gone: farthest from there, own heights."""

    start: tuple[float, float]
    born_s: float
    seen_s: float
    gone: float = 0.0


@dataclass(slots=True)
class _Sight:
    """Where people were. rows: (track, left, right, foot, height, whether about to leave the picture)."""

    time_s: float
    rows: list[Row] = field(default_factory=list)


class Settled:
    """The things of one camera. reach: how near an owner is, in own heights; largest: taller things are nobody's."""

    def __init__(self, polygon: Sequence[Point] | None, *, unknown: bool, reach: float, largest: float) -> None:
        self._polygon, self._unknown, self._reach, self._largest = polygon, unknown, reach, largest
        self._things: dict[int, Thing] = {}
        self._bags: dict[int, _Bag] = {}
        self._trail: deque[_Sight] = deque()
        self._walks: dict[int, _Walk] = {}
        self._blobs: tuple[StaticBlob, ...] = ()
        self._firming: list[_Blob] = []
        self._number = 0

    @property
    def things(self) -> list[Thing]:
        """What stands still now, oldest first."""
        return list(self._things.values())

    def __contains__(self, number: object) -> bool:
        return number in self._things

    def forget(self, number: int) -> None:
        """The thing is gone."""
        self._things.pop(number, None)

    def drop(self) -> None:
        """Forget everything."""
        self._things, self._bags, self._blobs = {}, {}, ()
        self._walks, self._firming = {}, []
        self._trail.clear()

    def step(self, view: View) -> None:
        """Take one picture in."""
        self._remember_people(view)
        for i in np.flatnonzero(view.seen).tolist():
            if view.labels[int(view.tracks.label[i])] == "bag":
                self._watch_bag(view, i)
        self._bags = {number: bag for number, bag in self._bags.items() if view.time_s - bag.last_s <= 5.0}
        if self._unknown and view.picture is not None:
            fresh = view.picture.blobs != self._blobs
            self._blobs = view.picture.blobs
            self._watch_blobs(view, fresh=fresh)
        boxes = self._walkers(view)
        for thing in self.things:
            if thing.seen_s == view.time_s:
                thing.shown_s = view.time_s
            if any(overlap(thing.box, box) >= PART for box in boxes):
                thing.seen_s = view.time_s  # hidden, not gone
            elif view.time_s - thing.seen_s > 30.0:
                self.forget(thing.number)

    def planted(self, number: int, time_s: float) -> bool:
        """Whether a person's track has stayed where it was first seen."""
        walk = self._walks.get(number)
        return walk is not None and walk.gone < WALKED and time_s - walk.born_s >= PLANTED_S

    def _watch_bag(self, view: View, i: int) -> None:
        number, box = int(view.tracks.id[i]), box_of(view.tracks, i)
        centre = (box[0] + box[2]) / 2 * view.aspect, (box[1] + box[3]) / 2
        size = max(1e-3, box[3] - box[1])
        bag = self._bags.setdefault(number, _Bag(centre, view.time_s, view.time_s))
        bag.last_s = view.time_s
        if np.hypot(centre[0] - bag.anchor[0], centre[1] - bag.anchor[1]) > STILL_SHARE * size:
            bag.anchor, bag.since_s = centre, view.time_s
            return
        score = float(view.tracks.score[i])
        known = self._at(box)
        if known is not None:
            known.seen_s, known.seen_as, known.label = view.time_s, "bag", "bag"
            known.box, known.score = box, score
            if number not in known.tracks:
                known.tracks = (*known.tracks[-3:], number)
        elif view.time_s - bag.since_s >= STILL_S:
            thing = self._add(view, box, bag.since_s, "bag", score)
            thing.label, thing.tracks = "bag", (number,)

    def _watch_blobs(self, view: View, *, fresh: bool) -> None:
        movers = [*self._walkers(view), *_boxes(view, ("animal",)), *_boxes(view, None)]
        planted = self._walkers(view, planted=True)
        for blob in self._blobs:
            part = any(overlap(blob.box, box) >= PART for box in movers)
            known = self._at(blob.box)
            if known is not None and known.owner is None and not part and union(known.box, blob.box) < FIRM:
                self.forget(known.number)  # somebody stood before it, or with it, and has gone: look again
                known = None
            if known is not None:
                if blob.added <= HOLE:
                    continue
                known.seen_s = view.time_s
                if known.seen_as == "unknown" and not part:
                    known.box, known.score = blob.box, blob.added
                continue
            if not fresh or blob.added < ADDED:
                continue
            firming = self._firm(blob.box, view.time_s)
            held_s = view.time_s - firming.firm_s
            if part:
                continue
            within = any(overlap(blob.box, box) >= PART for box in planted)
            if held_s >= (FIRM_WITHIN_S if within else FIRM_S) - 1e-6 and not _flat(blob.box, view.aspect):
                self._add(view, blob.box, view.time_s - blob.since_s, "unknown", blob.added, firming.first_s)
        self._firming = [blob for blob in self._firming if view.time_s - blob.seen_s <= 10.0]

    def _firm(self, box: Box, time_s: float) -> _Blob:
        """What is known of a blob that is no thing yet; a box that changes begins anew, and has been seen before all the same."""
        for blob in self._firming:
            if overlap(blob.box, box) >= SAME:
                if union(blob.box, box) < FIRM:
                    blob.box, blob.firm_s = box, time_s
                blob.seen_s = time_s
                return blob
        self._firming.append(_Blob(box, time_s, time_s, time_s))
        return self._firming[-1]

    def _add(
        self, view: View, box: Box, since_s: float, seen_as: str, score: float, first_s: float | None = None
    ) -> Thing:
        """first_s: when something of it was seen first, before ``since_s`` when somebody hid it in between."""
        self._number += 1
        thing = Thing(self._number, box, since_s, view.time_s, seen_as, None, score)
        self._things[thing.number] = thing
        foot = np.array([[(box[0] + box[2]) / 2, box[3]]], np.float32)
        inside = self._polygon is None or bool(points_in_polygon(foot, self._polygon)[0])
        if inside and since_s - view.start_s >= START_S:
            self._find_owner(thing, view.aspect, since_s if first_s is None else min(first_s, since_s))
        return thing

    def _find_owner(self, thing: Thing, aspect: float, first_s: float) -> None:
        """The person who was nearest when it appeared, by own heights."""
        best = min(self._reach, ARM)
        for sight in self._trail:
            if not first_s - LOOK_BACK_S <= sight.time_s <= thing.since_s + 1.0:
                continue
            for row in sight.rows:
                away = _heights_away(thing, row, aspect)
                if away <= best and thing.fits(row[4], self._largest) and not self.planted(row[0], sight.time_s):
                    best, thing.owner, thing.owner_height = away, row[0], row[4]

    def last_near(self, thing: Thing, aspect: float) -> tuple[float, bool]:
        """When its owner was last seen beside it (it is often noticed only once the owner has stepped aside), and whether the
        owner was still there when last seen at all."""
        beside = None
        for sight in reversed(self._trail):
            for row in sight.rows:
                if row[0] == thing.owner:
                    near = _heights_away(thing, row, aspect) <= self._reach
                    beside = near and not row[5] if beside is None else beside
                    if near:
                        return max(thing.since_s, sight.time_s), beside
        return thing.since_s, beside is not False

    def _remember_people(self, view: View) -> None:
        if self._trail and view.time_s - self._trail[-1].time_s < TRAIL_EVERY_S:
            return
        sight = _Sight(view.time_s)
        for i in np.flatnonzero(view.seen).tolist():
            if view.labels[int(view.tracks.label[i])] == "person":
                x1, y1, x2, y2 = (float(v) for v in view.tracks.xyxy[i])
                number, height = int(view.tracks.id[i]), max(1e-3, y2 - y1)
                sight.rows.append((number, x1, x2, y2, height, leaving(view, i)))
                foot = (x1 + x2) / 2 * view.aspect, y2
                born_s = view.time_s - float(view.tracks.age_s[i])
                walk = self._walks.setdefault(number, _Walk(foot, born_s, view.time_s))
                walk.seen_s = view.time_s
                walk.gone = max(walk.gone, float(np.hypot(foot[0] - walk.start[0], foot[1] - walk.start[1])) / height)
        self._trail.append(sight)
        while self._trail and view.time_s - self._trail[0].time_s > 60.0:
            self._trail.popleft()
        self._walks = {n: walk for n, walk in self._walks.items() if view.time_s - walk.seen_s <= 60.0}

    def _walkers(self, view: View, *, planted: bool = False) -> list[Box]:
        """Boxes of the people who are not planted, or of those who are."""
        tracks = view.tracks
        return [
            box_of(tracks, i)
            for i in range(len(tracks))
            if view.labels[int(tracks.label[i])] == "person" and self.planted(int(tracks.id[i]), view.time_s) == planted
        ]

    def _at(self, box: Box) -> Thing | None:
        for thing in self._things.values():
            if overlap(thing.box, box) >= SAME:
                return thing
        return None


def leaving(view: View, i: int) -> bool:
    """Whether row ``i`` is about to leave the picture."""
    (x1, y1, x2, y2), (vx, vy) = view.tracks.xyxy[i].tolist(), view.tracks.velocity_per_s[i].tolist()
    aside = x1 + min(vx, 0) * LEAVES_S <= BORDER or x2 + max(vx, 0) * LEAVES_S >= 1 - BORDER
    up, down = y2 + min(vy, 0) * LEAVES_S <= BORDER, y1 + max(vy, 0) * LEAVES_S >= 1 - BORDER
    return bool(aside or up or down)


def _heights_away(thing: Thing, row: Row, aspect: float) -> float:
    """From the thing's foot to somebody's foot line, in heights of that person."""
    _, left, right, foot, height, _ = row
    gap = max(0.0, max(left, thing.box[0]) - min(right, thing.box[2])) * aspect
    return float(np.hypot(gap, foot - thing.box[3])) / height


def overlap(a: Box, b: Box) -> float:
    """Their common area as a share of the smaller one."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    least = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return width * height / max(least, 1e-9)


def union(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    return both / max((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both, 1e-9)


def _flat(box: Box, aspect: float) -> bool:
    """Whether it is much wider than high, as shadows, kerbs and tapes are."""
    return (box[2] - box[0]) * aspect > FLATTEST * (box[3] - box[1])


def _boxes(view: View, labels: tuple[str, ...] | None) -> list[Box]:
    """Boxes of these labels; None: of everything but people, animals and bags."""
    found = []
    for i in range(len(view.tracks)):
        label = view.labels[int(view.tracks.label[i])]
        if label in labels if labels is not None else label not in ("person", "animal", "bag"):
            found.append(box_of(view.tracks, i))
    return found
