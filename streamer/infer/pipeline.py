"""From detections to tracks to events, for any number of cameras: the one path of `run`, `demo` and `process`.

Pure: no clock, no I/O, no thread. What a picture gives depends only on the pictures before it, so the same
input gives the same output however it is batched. A new epoch of a camera ends its open incidents, forgets
its tracks and re-arms its rules; so does nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import Detections
from vedette.streamer.config import CameraSection
from vedette.streamer.config.schema import CameraDefaults
from vedette.streamer.infer.incidents import Incidents, Moment
from vedette.streamer.infer.learned import EvidenceStage, Learned, Sight
from vedette.streamer.infer.motion import MotionField
from vedette.streamer.rules.base import RuleConfig, Schedule, labels_of
from vedette.streamer.rules.view import Places, Rule, Signal, View
from vedette.streamer.tracking.tracker import Tracker, TrackerConfig
from vedette.streamer.types import F32, Event, Tracks

#: Seconds since 1970 -> local (weekday, minute of the day); Monday is 0
LocalTime = Callable[[float], tuple[int, int]]

Section = CameraDefaults | CameraSection


def machine_time(wall_s: float) -> tuple[int, int]:
    """Weekday and minute of the day in this machine's time zone."""
    moment = datetime.fromtimestamp(wall_s)
    return moment.weekday(), moment.hour * 60 + moment.minute


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one picture gave. tracks: confirmed and worth reporting, coasting ones included. scene: learned evidence.

    settled: every track is confirmed and was seen in this very picture; nothing is in doubt."""

    moment: Moment
    tracks: Tracks
    events: list[Event]
    scene: Mapping[str, float] = field(default_factory=dict)
    settled: bool = False


@dataclass(slots=True)
class _Running:
    """A rule at work. start_s, rearm: see `View`; start_s None: from the next picture on."""

    config: RuleConfig
    rule: Rule
    wanted: NDArray[np.bool_]
    schedule: Schedule | None
    rearm: bool
    start_s: float | None = None


@dataclass(slots=True)
class _Camera:
    """The memory of one camera. time_s: its own clock, through all epochs, never back. fresh: an epoch has just begun."""

    section: Section
    incidents: Incidents
    wanted: NDArray[np.bool_]
    rules: list[_Running] = field(default_factory=list)
    gate: Gate = field(default_factory=lambda: Gate(0.0))
    last: Moment | None = None
    time_s: float = 0.0
    fresh: bool = True


class Gate:
    """Which tracks are worth reporting: those whose detections scored ``min_score`` on average at least once.

    Once reported, always reported: nothing flickers. Raising min_score loses weak objects and shows fewer ghosts.
    """

    def __init__(self, min_score: float) -> None:
        self.min_score = min_score
        self._sums: dict[int, tuple[float, int]] = {}
        self._reported: set[int] = set()

    def __call__(self, tracks: Tracks) -> NDArray[np.bool_]:
        """bool [N]: confirmed and worth reporting. Call once a picture, with all tracks."""
        numbers = [int(number) for number in tracks.id]
        for i in np.flatnonzero(tracks.detection >= 0).tolist():
            total, count = self._sums.get(numbers[i], (0.0, 0))
            total, count = total + float(tracks.score[i]), count + 1
            self._sums[numbers[i]] = total, count
            if tracks.confirmed[i] and total >= self.min_score * count:
                self._reported.add(numbers[i])
        alive = set(numbers)
        if len(self._sums) > 4 * len(alive) + 256:  # ids never return after the tracker has forgotten them
            self._sums = {n: s for n, s in self._sums.items() if n in alive}
            self._reported &= alive
        return np.array([number in self._reported for number in numbers], np.bool_) & tracks.confirmed


class Pipeline:
    """Trackers and rules of many cameras.

    boot: this life's name, part of every public track id. rearm: whether the scene may have been watched before
    (after a restart), so that who already stands inside is silent. local: how schedules read the clock. evidence: the
    temporal engine between tracker and rules; may be set or taken away at any time.
    """

    def __init__(
        self,
        site: str,
        boot: str,
        labels: Sequence[str],
        *,
        rearm: bool = False,
        tracker: TrackerConfig | None = None,
        local: LocalTime = machine_time,
        evidence: EvidenceStage | None = None,
    ) -> None:
        self.site, self.boot, self.labels = site, boot, tuple(labels)
        self._rearm, self._local, self.evidence = rearm, local, evidence
        self._tracker = Tracker(tracker, labels=self.labels)
        self._cameras: dict[str, _Camera] = {}

    @property
    def cameras(self) -> tuple[str, ...]:
        """The cameras that are configured."""
        return tuple(self._cameras)

    def configure(self, camera: str, section: Section) -> list[Event]:
        """Watch ``camera`` by ``section``. Of a known camera only the rules that changed lose their memory; the
        events end what those had open."""
        known = self._cameras.get(camera)
        state = known or _Camera(section, Incidents(self.site, camera, self.boot), self._mask(section, None))
        running = {rule.config.title(): rule for rule in state.rules}
        kept, fresh = [], []
        for config in section.rules:
            old = running.get(config.title())
            if known is not None and old is not None and _same(old.config, state.section, config, section):
                kept.append(running.pop(config.title()))
            else:
                fresh.append(self._start(config, section, rearm=self._rearm or known is not None))
        events = self._drop(state, list(running.values()), "reload")
        state.section, state.wanted = section, self._mask(section, None)
        for config in section.rules:
            state.wanted = state.wanted | self._mask(section, config)
        if known is None or state.gate.min_score != section.min_score:
            state.gate = Gate(section.min_score)
        by_title = {rule.config.title(): rule for rule in [*kept, *fresh]}
        state.rules = [by_title[config.title()] for config in section.rules]
        self._cameras[camera] = state
        return events

    def remove(self, camera: str, reason: str = "camera removed") -> list[Event]:
        """Forget the camera; the events end what was open."""
        state = self._cameras.pop(camera, None)
        self._tracker.forget(camera)
        if self.evidence is not None:
            self.evidence.forget(camera)
        return [] if state is None else self._drop(state, state.rules, reason)

    def again(self, camera: str, event_id: str) -> int | None:
        """The rev of one more telling of that incident, None when camera or incident is no longer known."""
        state = self._cameras.get(camera)
        return None if state is None else state.incidents.again(event_id)

    def interrupt(self, camera: str, reason: str) -> list[Event]:
        """No pictures come (end of file, camera gone): end what is open; rules re-arm when pictures come again."""
        state = self._cameras[camera]
        events = self._drop(state, state.rules, reason)
        for rule in state.rules:
            rule.start_s, rule.rearm = None, True
        return events

    def step(
        self,
        moments: Sequence[Moment],
        detections: Sequence[Detections],
        scene: F32 | None = None,
        fields: Sequence[MotionField | None] = (),
    ) -> list[Outcome]:
        """One picture of each camera given -> what it gave, in order. scene: f32 [B,S,D] tokens of the same pictures.
        fields: what their motion tokens were made of, for explanations; empty where there are none.

        Pictures of cameras that are not configured (any more) give nothing and are left out.
        """
        known = [i for i, moment in enumerate(moments) if moment.camera in self._cameras]
        moments = [moments[i] for i in known]
        states = [self._cameras[moment.camera] for moment in moments]
        ended = [self._advance(state, moment) for state, moment in zip(states, moments, strict=True)]
        wanted = [detections[i][state.wanted[detections[i].label]] for i, state in zip(known, states, strict=True)]
        tracks: Sequence[Tracks] = self._tracker.update(
            [moment.camera for moment in moments],
            [state.time_s for state in states],
            wanted,
            [moment.aspect for moment in moments],
        )
        tokens = [(None if scene is None else scene[i], fields[i] if fields else None) for i in known]
        learned = self._learn(moments, states, tracks, wanted, tokens)
        return [
            self._judge(state, moment, seen, before)
            for state, moment, seen, before in zip(states, moments, learned, ended, strict=True)
        ]

    def _learn(
        self,
        moments: Sequence[Moment],
        states: Sequence[_Camera],
        tracks: Sequence[Tracks],
        wanted: Sequence[Detections],
        tokens: Sequence[tuple[F32 | None, MotionField | None]],
    ) -> list[Learned]:
        """Evidence of the cameras that ask for it; the tracks of the others as they are."""
        learned = [Learned(seen, {}) for seen in tracks]
        stage = self.evidence
        if stage is None:
            return learned
        asking = [i for i, s in enumerate(states) if stage.everywhere or any(rule.config.learned() for rule in s.rules)]
        sights = [
            Sight(moments[i].camera, states[i].time_s, states[i].fresh, tracks[i], wanted[i], *tokens[i])
            for i in asking
        ]
        for i, found in zip(asking, stage.step(sights), strict=True):
            learned[i] = found
            states[i].fresh = False
        return learned

    def _mask(self, section: Section, rule: RuleConfig | None) -> NDArray[np.bool_]:
        """bool [labels]: what a rule (or the camera itself) looks at."""
        names = section.classes if rule is None or rule.classes is None else rule.classes
        wanted = labels_of(names)
        return np.array([label in wanted for label in self.labels], np.bool_)

    def _start(self, config: RuleConfig, section: Section, *, rearm: bool) -> _Running:
        rule = config.rule(Places(section.zones, section.lines))
        schedule = None if config.schedule is None else Schedule.parse(config.schedule)
        return _Running(config, rule, self._mask(section, config), schedule, rearm)

    def _advance(self, state: _Camera, moment: Moment) -> list[Event]:
        """Move the camera's clock to ``moment``; on a new epoch end and forget everything first."""
        last, state_time = state.last, state.time_s
        events: list[Event] = []
        if last is None:
            state.time_s = moment.source_s
        elif moment.epoch == last.epoch:
            state.time_s = state_time + max(0.0, moment.source_s - last.source_s)
        else:
            state.fresh = True
            events = self._drop(state, state.rules, "reconnect")
            for rule in state.rules:
                rule.start_s, rule.rearm = None, True
            self._tracker.reset(moment.camera)
            state.time_s = state_time + max(0.0, (moment.mono_ns - last.mono_ns) / 1e9)
        state.last = moment
        for rule in state.rules:
            if rule.start_s is None:
                rule.start_s = state.time_s
        return events

    def _judge(self, state: _Camera, moment: Moment, learned: Learned, events: list[Event]) -> Outcome:
        """Show the reportable tracks to every rule of the camera."""
        reported = learned.tracks[state.gate(learned.tracks)]
        names = () if self.evidence is None else self.evidence.names
        clock = self._local(moment.wall_s) if any(rule.schedule for rule in state.rules) else (0, 0)
        for rule in state.rules:
            assert rule.start_s is not None
            view = View(
                tracks=reported[rule.wanted[reported.label]],
                labels=self.labels,
                time_s=state.time_s,
                start_s=rule.start_s,
                rearm=rule.rearm,
                awake=rule.schedule is None or rule.schedule.awake(*clock),
                aspect=moment.aspect,
                evidence_names=names,
                scene=learned.scene,
                why=learned.why,
                picture=moment.stats,
            )
            events += self._events(state, rule, rule.rule.step(view), moment)
        settled = bool(np.all(learned.tracks.confirmed & (learned.tracks.detection >= 0)))
        return Outcome(moment, reported, events, learned.scene, settled)

    def _drop(self, state: _Camera, rules: Sequence[_Running], reason: str) -> list[Event]:
        """End what these rules have open, as of the camera's last picture."""
        events: list[Event] = []
        for rule in rules if state.last is not None else ():
            assert state.last is not None
            events += self._events(state, rule, rule.rule.drop(state.time_s, reason), state.last)
        return events

    def _events(self, state: _Camera, rule: _Running, signals: Sequence[Signal], moment: Moment) -> list[Event]:
        return [state.incidents.event(rule.config, signal, moment, state.time_s) for signal in signals]


def _same(old: RuleConfig, before: Section, new: RuleConfig, now: Section) -> bool:
    """Whether a rule means the same under both sections: its keys, its place and its classes."""
    places = [
        (section.zones if what == "zone" else section.lines)[name]
        for section, config in ((before, old), (now, new))
        for what, name in config.place().items()
    ]
    half = len(places) // 2
    classes = (
        labels_of(section.classes if config.classes is None else config.classes)
        for section, config in ((before, old), (now, new))
    )
    return old == new and places[:half] == places[half:] and len(set(classes)) == 1
