"""Clips of a file's incidents for `vedette process --clips`: the daemon's films, by the file's own clock."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from vedette.streamer.capture.clip import ClipForm, encode_clip
from vedette.streamer.capture.evidence import EvidenceRing
from vedette.streamer.config.schema import ClipSection, EvidenceSection
from vedette.streamer.offline.videofile import Picture
from vedette.streamer.types import Event

#: (event to tell, its evidence)
Telling = tuple[Event, dict[str, str | None]]


class FileClips:
    """Remembers pictures as a capture process does. again: the next rev of an incident.

    What is told depends only on the file: the ring is fed and compacted with every picture.
    """

    def __init__(self, folder: Path, section: EvidenceSection, again: Callable[[str], int | None]) -> None:
        self._folder, self._again = folder / "clips", again
        self._clip = section.clip or ClipSection()
        self._form = ClipForm(self._clip.fps, self._clip.max_side)
        self._ring = EvidenceRing(
            section.ring_mb * 1_000_000,
            quality=section.jpeg_quality,
            max_side=section.max_side,
            jpeg_every_s=1 / self._clip.fps,
        )
        self._waiting: list[Event] = []
        self._folder.mkdir(exist_ok=True)
        for old in self._folder.glob("*.mp4"):
            old.unlink()

    def take(self, picture: Picture, events: list[Event]) -> list[Telling]:
        """Remember a picture and the incidents that it started; the clips that are complete."""
        assert picture.full is not None
        now_ns = round(picture.time_s * 1e9)
        self._ring.push(picture.full, now_ns)
        self._ring.compact()
        self._waiting += [event for event in events if event.phase == "start"]
        due = [event for event in self._waiting if now_ns >= event.mono_ns + self._clip.after * 1e9]
        return self._tell(due)

    def finish(self) -> list[Telling]:
        """The file has ended: every clip that waits is as long as the file lets it be."""
        return self._tell(list(self._waiting))

    def _tell(self, due: list[Event]) -> list[Telling]:
        told = []
        for event in due:
            self._waiting.remove(event)
            from_ns, until_ns = (
                event.mono_ns - round(self._clip.before * 1e9),
                event.mono_ns + round(self._clip.after * 1e9),
            )
            shots = self._ring.span(max(0, from_ns), until_ns)
            until_ns = min(until_ns, shots[-1][0]) if shots else until_ns
            film = encode_clip(shots, max(0, from_ns), until_ns, self._form, self._folder)
            (self._folder / f"{event.id}.mp4").write_bytes(film)
            rev = self._again(event.id)
            if rev is None:
                continue
            said = {"before_s": self._clip.before, "after_s": self._clip.after}
            update = replace(event, rev=rev, phase="update", explain={**event.explain, "clip": said})
            digest = hashlib.sha256(film).hexdigest()
            evidence = {"snapshot": None, "clip": f"clips/{event.id}.mp4", "sha256": None, "clip_sha256": digest}
            told.append((update, evidence))
        return told
