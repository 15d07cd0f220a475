"""What the capture process says about a picture besides its pixels: a few numbers from a small grey copy of it.

Pixels are looked at once, where they are (`vedette.streamer.capture.picturemeter`); the rules about the camera itself (covered,
blurred, moved, dark, bright) and about what was left behind run in another process and judge these numbers. A leaf.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

Share = Annotated[float, Field(ge=0, le=1)]
Usual = Annotated[float, Field(ge=0)] | None


@dataclass(frozen=True, slots=True)
class StaticBlob:
    """Something that stands still and was not there before. box: normalised xyxy.

    since_s: for how long it has stood still, seconds. added: 0..1, near 1 when the picture shows its outline now (it
    was put there), near 0 when only the learned background shows one (it was taken away and left a hole).
    """

    box: tuple[float, float, float, float]
    since_s: Annotated[float, Field(ge=0)]
    added: Share


@dataclass(frozen=True, slots=True)
class PictureStats:
    """The numbers of one picture.

    mean, contrast: mean and standard deviation of the grey levels, 0..1. sharpness: variance of the Laplacian
    over the variance of the grey levels. edges: how much of the reference's edges this picture still shows in place, about 1
    as usual, about 0 behind a cover or in another direction; None while there is no reference or the scene has too few
    edges to tell. usual_contrast, usual_sharpness: slow means of the same, None until learned. motion: share of the
    pixels that changed since the picture measured before; None for the first. blobs: largest first.
    """

    __pydantic_config__: ClassVar[Any] = {"allow_inf_nan": False}

    mean: Share
    contrast: Share
    sharpness: Annotated[float, Field(ge=0)]
    edges: Annotated[float, Field(ge=-2, le=2)] | None = None
    usual_contrast: Usual = None
    usual_sharpness: Usual = None
    motion: Share | None = None
    blobs: Annotated[tuple[StaticBlob, ...], Field(max_length=16)] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON takes them; a fifth of the time of `dataclasses.asdict`, and this is done for every frame."""
        return {
            "mean": self.mean,
            "contrast": self.contrast,
            "sharpness": self.sharpness,
            "edges": self.edges,
            "usual_contrast": self.usual_contrast,
            "usual_sharpness": self.usual_sharpness,
            "motion": self.motion,
            "blobs": [{"box": blob.box, "since_s": blob.since_s, "added": blob.added} for blob in self.blobs],
        }
