"""The temporal engine as the daemon uses it: cameras' tokens in, per-track evidence and scene novelty out.

`Timeline` is the host's half of RIFT, in float64: slots, write counts, rotary angles, decays, masks. `TemporalEngine` puts it in
front of a runner (ONNX Runtime, TensorRT), checks every token, and keeps one stream's fault from the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vedette.engines.api import F32, EngineFault
from vedette.engines.temporal_spec import INVALID, RiftConfig, TemporalSpec
from vedette.kernels.reference import rotary_frequencies, rotary_tables

Array = NDArray[Any]
Mask = NDArray[np.bool_]

#: Tokens larger than this are not activations any more; a product of two would leave half precision.
TOKEN_LIMIT = 1.0e4


class Timeline:
    """Where every stream stands in its ring and in time; pure float64 bookkeeping, no model.

    window: slots of the ring that are used, all by default; the others stay invalid for ever, so that fewer is exact too.
    """

    def __init__(self, config: RiftConfig, cameras: int, window: int | None = None) -> None:
        if window is not None and not 1 <= window <= config.window:
            raise EngineFault(
                f"engine.window: needs 1..{config.window}, the slots of this model's ring, got {window}; "
                "lower it or export the model with a longer window"
            )
        self.config, self.window = config, window or config.window
        self.written = np.zeros((cameras, config.streams), np.int64)
        self.last_s = np.full(cameras, np.nan)
        self._speeds = rotary_frequencies(config.rotary_dim, config.min_period_s, config.max_period_s)
        self._fade = -np.asarray(config.half_lives_s, np.float64)

    def forget(self, camera: int, streams: Mask | None = None) -> None:
        """A camera starts anew, or those of its streams that the mask [E] selects."""
        self.written[camera, slice(None) if streams is None else streams] = 0
        if streams is None:
            self.last_s[camera] = np.nan

    def feeds(self, start: int, present: Mask, time_s: Array, context_valid: Mask | None) -> dict[str, Array]:
        """Graph inputs that depend on time: present bool [c,E] and time_s f64 [c] of cameras start .. start + c - 1.

        A present stream is written; an absent one overwrites its oldest slot with an invalid key, and its slot does not advance.
        Call ``advance`` once the step has run.
        """
        config, rows, streams = self.config, slice(start, start + len(present)), self.config.streams
        cos, sin = (
            z[:, None] if streams == 1 else z.repeat(streams, 0)[:, None] for z in rotary_tables(time_s, self._speeds)
        )
        feeds: dict[str, Array] = {
            "we": present.reshape(-1).astype(np.float64),
            "cos": cos,
            "sin": sin,
            "slot": (self.written[rows] % self.window).reshape(-1),
        }
        if config.folds:
            elapsed = time_s - self.last_s[rows]
            elapsed[np.isnan(elapsed)] = 0.0
            feeds["dec"] = np.exp2(elapsed[:, None] / self._fade).repeat(streams, 0)
        if config.has_cross:
            if context_valid is None:
                context_valid = np.ones((len(present), config.context), np.bool_)
            seen = np.concatenate((context_valid, present), 1)
            mask = np.where(seen, 0.0, INVALID)[:, None, None, :]
            feeds["xmask"] = np.broadcast_to(mask, (len(present), 1, config.streams, seen.shape[1]))
        return feeds

    def advance(self, start: int, present: Mask, time_s: Array) -> None:
        """The step that used ``feeds`` has run: count the writes, move the clock."""
        self.written[start : start + len(present)] += present
        self.last_s[start : start + len(present)] = time_s


@dataclass(frozen=True, slots=True)
class TemporalFrame:
    """One camera's frame as the temporal graph sees it.

    slot: the camera's place, 0 .. cameras - 1. time_s: seconds on the camera's clock, not falling within an epoch.
    tokens f32 [N,token_dim] and present bool [N]: which track slots hold an object now. born bool [N]: slots whose
    object is new, their memory is cleared first. context f32 [P,context_dim] (None: no scene this frame) and context_valid bool [P].
    reset: a new epoch, the camera's whole memory is cleared first.
    """

    slot: int
    time_s: float
    tokens: F32
    present: Mask
    born: Mask | None = None
    context: F32 | None = None
    context_valid: Mask | None = None
    reset: bool = False


@dataclass(frozen=True, slots=True)
class TemporalAnswer:
    """What one frame gave; arrays are copies.

    evidence: probabilities f32 [N,A] per track slot (0 where absent), or None without evidence heads. identity f32 [N,D] or None.
    scene: probabilities f32 [B] of the whole camera, or None. forecast f32 [context_dim]: expected mean scene token of the
    next frame, or None. latents f32 [E,d]: every stream's state.
    refused: sentences, one a fault; a frame with ``skipped`` changed nothing.
    """

    slot: int
    latents: F32
    evidence: F32 | None = None
    identity: F32 | None = None
    forecast: F32 | None = None
    scene: F32 | None = None
    refused: tuple[str, ...] = ()
    skipped: bool = False


class Runner(Protocol):
    """A temporal graph with its state, on some backend."""

    spec: TemporalSpec
    cameras: int
    backend: str
    #: every call steps all cameras (fixed shapes and addresses, for CUDA graphs)
    whole: bool

    def clear(self, camera: int, streams: Mask | None = None) -> None: ...

    def run(self, start: int, count: int, feeds: Mapping[str, Array]) -> dict[str, Array]: ...


@dataclass(slots=True)
class _Checked:
    """A frame after its faults were taken out."""

    tokens: F32
    present: Mask
    context: F32
    context_valid: Mask
    time_s: float
    born: Mask
    reset: bool = False
    skipped: bool = False
    refused: list[str] = field(default_factory=list)


class TemporalEngine:
    """RIFT with slots for a fixed number of cameras, on any runner.

    ``gap`` bounds how many idle cameras between two busy ones are stepped along with them, inertly: raising it makes
    fewer, larger calls.
    """

    def __init__(self, runner: Runner, *, gap: int = 1, window: int | None = None) -> None:
        self.runner, self.spec, self.config = runner, runner.spec, runner.spec.config
        self.timeline = Timeline(self.config, runner.cameras, window)
        self._gap, self._window = gap, window
        self._next: Runner | None = None
        self._no_context = np.zeros((self.config.context, self.config.context_dim), np.float32)
        self._none_valid = np.zeros(self.config.context, np.bool_)

    def swap(self, runner: Runner) -> None:
        """Serve by ``runner`` from the next step on; callable from any thread. Memory of another backend is not carried over.

        Raises EngineFault when the model differs in more than its precision.
        """
        if (runner.spec.config, runner.cameras) != (self.config, self.runner.cameras):
            raise EngineFault(
                f"TemporalEngine.swap: needs the same model for {self.runner.cameras} cameras, got {runner.cameras} cameras and "
                f"{'the same' if runner.spec.config == self.config else 'another'} config; open a new engine"
            )
        self._next = runner

    def settle(self) -> bool:
        """Take over a runner that was handed to ``swap``; True when the memory is empty because of it."""
        runner, self._next = self._next, None
        if runner is None:
            return False
        self.runner, self.spec = runner, runner.spec
        self.timeline = Timeline(self.config, runner.cameras, self._window)
        return True

    def step(self, frames: Sequence[TemporalFrame]) -> list[TemporalAnswer]:
        """One answer a frame, in order. A frame or stream at fault is refused by a sentence in its answer; no other answer changes.

        Raises EngineFault only for what no single camera caused: a slot number out of range, or two frames of one slot.
        """
        self.settle()
        slots = [f.slot for f in frames]
        if any(not 0 <= s < self.runner.cameras for s in slots) or len(set(slots)) != len(slots):
            raise EngineFault(
                f"TemporalEngine: slots must be distinct and in 0..{self.runner.cameras - 1}, got {slots}; "
                "open the engine for more cameras or send one frame a camera"
            )
        checked = {f.slot: self._check(f) for f in frames}
        answers: dict[int, TemporalAnswer] = {}
        every = [(0, self.runner.cameras)] if checked else []
        for start, count in every if self.runner.whole else runs_of(sorted(checked), self._gap):
            answers |= self._run(start, count, checked)
        return [answers[s] for s in slots]

    def _check(self, frame: TemporalFrame) -> _Checked:
        """The frame with every faulty stream absent; with a faulty clock or shape, the whole frame inert.

        A reset is honoured even where the frame itself is refused, or the new epoch's clock would look like a falling one.
        """
        where = f"camera slot {frame.slot}"
        fault = self._frame_fault(frame)
        if fault:
            out = self._inert(frame.slot)
            out.reset = frame.reset
            out.refused.append(f"{where}: {fault}")
            return out
        c, refused = self.config, list[str]()
        tokens, present = self._sane_tokens(frame, where, refused)
        context, valid = self._sane_context(frame, where, refused)
        born = np.zeros(c.streams, np.bool_)
        if frame.born is not None:
            born[c.latents :] = frame.born
        here = np.ones(c.streams, np.bool_)
        here[c.latents :] = present
        return _Checked(tokens, here, context, valid, float(frame.time_s), born, frame.reset, refused=refused)

    def _sane_tokens(self, frame: TemporalFrame, where: str, refused: list[str]) -> tuple[F32, Mask]:
        """Tokens with zeros where a track is absent or its token is at fault, and who is present."""
        tokens, present = np.asarray(frame.tokens, np.float32), np.asarray(frame.present, np.bool_)
        if not _within(tokens):
            sane = (np.abs(tokens) <= TOKEN_LIMIT).all(-1)
            refused += [
                f"{where}: track {i}: token must be finite and within {TOKEN_LIMIT:g}, got {_worst(tokens[i])}; "
                "the track is absent from this frame"
                for i in np.flatnonzero(present & ~sane)
            ]
            present = present & sane
        return np.where(present[:, None], tokens, np.float32(0)), present

    def _sane_context(self, frame: TemporalFrame, where: str, refused: list[str]) -> tuple[F32, Mask]:
        """Context with zeros where a token is hidden or at fault, and which tokens may be looked at."""
        c = self.config
        if frame.context is None or not c.context:
            return self._no_context, self._none_valid
        context, wanted = np.asarray(frame.context, np.float32), frame.context_valid
        if wanted is None and _within(context):
            return context, ~self._none_valid
        wanted = ~self._none_valid if wanted is None else np.asarray(wanted, np.bool_)
        sane = (np.abs(context) <= TOKEN_LIMIT).all(-1)
        bad = wanted & ~sane
        if bad.any():
            refused.append(
                f"{where}: context: token must be finite and within {TOKEN_LIMIT:g}, got {_worst(context[bad])} in "
                f"{int(bad.sum())} of {c.context}; they are hidden in this frame"
            )
        valid = wanted & sane
        return np.where(valid[:, None], context, np.float32(0)), valid

    def _frame_fault(self, frame: TemporalFrame) -> str | None:
        """Why a frame cannot be used at all, or None."""
        c = self.config
        width = c.token_dim or c.d_model
        for name, value, want in (
            ("tokens", frame.tokens, (c.tracks, width)),
            ("present", frame.present, (c.tracks,)),
            ("born", frame.born, (c.tracks,)),
            ("context", frame.context, (c.context, c.context_dim)),
            ("context_valid", frame.context_valid, (c.context,)),
        ):
            if value is not None and np.shape(value) != want and not (name.startswith("context") and not c.context):
                return f"{name}: needs {list(want)}, got {list(np.shape(value))}; the frame is skipped"
        last = self.timeline.last_s[frame.slot]
        if not np.isfinite(frame.time_s):
            return f"time_s: must be finite, got {frame.time_s}; the frame is skipped"
        if not frame.reset and frame.time_s < last:
            return (
                f"time_s: must not fall within an epoch, got {frame.time_s:.6f} after {last:.6f}; "
                "the frame is skipped, send reset to start a new epoch"
            )
        return None

    def _inert(self, slot: int) -> _Checked:
        """A camera that is stepped along without anything happening to it."""
        c, last = self.config, self.timeline.last_s[slot]
        return _Checked(
            tokens=np.zeros((c.tracks, c.token_dim or c.d_model), np.float32),
            present=np.zeros(c.streams, np.bool_),
            context=self._no_context,
            context_valid=self._none_valid,
            time_s=0.0 if np.isnan(last) else float(last),
            born=np.zeros(c.streams, np.bool_),
            skipped=True,
        )

    def _run(self, start: int, count: int, checked: Mapping[int, _Checked]) -> dict[int, TemporalAnswer]:
        batch = [checked.get(s) or self._inert(s) for s in range(start, start + count)]
        for slot, frame in enumerate(batch, start):
            if frame.reset:
                self.runner.clear(slot)
                self.timeline.forget(slot)
            elif frame.born.any():
                self.runner.clear(slot, frame.born)
                self.timeline.forget(slot, frame.born)
        present, time_s = np.stack([f.present for f in batch]), np.array([f.time_s for f in batch], np.float64)
        feeds = self.timeline.feeds(start, present, time_s, np.stack([f.context_valid for f in batch]))
        feeds |= {"det": np.stack([f.tokens for f in batch]), "ctx": np.stack([f.context for f in batch])}
        out = self.runner.run(start, count, feeds)
        stay = np.array([f.skipped for f in batch])
        last = self.timeline.last_s[start : start + count].copy()
        self.timeline.advance(start, present, np.where(stay, last, time_s))
        return {s: self._answer(s, s - start, checked[s], out) for s in range(start, start + count) if s in checked}

    def _answer(self, slot: int, row: int, frame: _Checked, out: Mapping[str, Array]) -> TemporalAnswer:
        parts = {k: out[k][row].astype(np.float32) for k in ("evidence", "identity", "forecast", "scene") if k in out}
        if "evidence" in parts:
            seen = frame.present[self.config.latents :, None]
            parts["evidence"] = np.where(seen, _probability(parts["evidence"]), np.float32(0))
        if "scene" in parts:
            parts["scene"] = _probability(parts["scene"])
        latents = out["y"][row].astype(np.float32)
        return TemporalAnswer(slot, latents, refused=tuple(frame.refused), skipped=frame.skipped, **parts)


def runs_of(slots: Sequence[int], gap: int) -> list[tuple[int, int]]:
    """Rising slots as (start, count) blocks; holes of at most ``gap`` slots are bridged."""
    runs: list[tuple[int, int]] = []
    for slot in slots:
        if runs and slot - sum(runs[-1]) <= gap:
            runs[-1] = (runs[-1][0], slot - runs[-1][0] + 1)
        else:
            runs.append((slot, 1))
    return runs


def _probability(logits: F32) -> F32:
    """The logistic function without overflow."""
    half: F32 = 0.5 + 0.5 * np.tanh(0.5 * logits)
    return half


def _within(values: Array) -> bool:
    """Whether every value is a sane activation; false for any NaN."""
    return not values.size or bool(values.max() <= TOKEN_LIMIT and values.min() >= -TOKEN_LIMIT)


def _worst(values: Array) -> str:
    """The value that broke the rule, for a message."""
    bad = values[~(np.abs(values) <= TOKEN_LIMIT)]
    return f"{float(bad.flat[0]):g}"
