"""VideoAnalysisNet: an attention-augmented CNN for the picture, banded-causal attention for the time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from vedette.engines.models.attention import AttentionBlock, TemporalAttention


@dataclass(frozen=True, slots=True)
class VideoOutput:
    """logits [B,T,classes]; with ``need_weights`` the temporal weights [B,h,T,T] and the last block's spatial [B*T,h,P,P]."""

    logits: Tensor
    temporal_weights: Tensor | None = None
    spatial_weights: Tensor | None = None


class VideoAnalysisNet(nn.Module):
    """Per-frame class logits of a clip of any length and any picture size of at least 2**len(widths) pixels a side.

    Frame: AttentionBlocks of growing width (each halves the map), then adaptive pooling to 1x1, so no size is built in.
    Time: x + TemporalAttention(LN x), then an FFN. ``window`` frames of memory; the answer for frame t never depends on
    a later frame. ``step`` gives the same answers one frame at a time.
    """

    def __init__(
        self,
        classes: int,
        *,
        widths: tuple[int, ...] = (32, 64, 128),
        heads: int = 4,
        window: int = 16,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if classes < 1 or not widths:
            raise ValueError(f"VideoAnalysisNet: needs at least one class and one width, got {classes} and {widths}")
        chain = (16, *widths)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, chain[0], 3, 2, 1, bias=False), nn.BatchNorm2d(chain[0]), nn.SiLU()
        )
        self.blocks = nn.ModuleList(AttentionBlock(a, b, heads) for a, b in pairwise(chain))
        self.pool = nn.AdaptiveAvgPool2d(1)
        d = chain[-1]
        self.norm_time, self.norm_ffn = nn.LayerNorm(d), nn.LayerNorm(d)
        self.temporal = TemporalAttention(d, heads, window)
        self.ffn = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))
        self.head = nn.Linear(d, classes)

    def frame_features(self, frames: Tensor, *, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """frames [B,3,H,W] -> [B,d] and the last block's spatial weights."""
        x, weights = self.stem(frames), None
        for block in self.blocks:
            x, weights = block(x, need_weights=need_weights and block is self.blocks[-1])
        return self.pool(x).flatten(1), weights

    def forward(self, clip: Tensor, *, need_weights: bool = False) -> VideoOutput:
        """clip [B,T,3,H,W] in 0..1 -> VideoOutput."""
        if clip.ndim != 5:
            raise ValueError(f"VideoAnalysisNet: needs a clip [B,T,C,H,W], got {list(clip.shape)}")
        features, spatial = self.frame_features(clip.flatten(0, 1), need_weights=need_weights)
        x = features.unflatten(0, clip.shape[:2])
        y, temporal = self.temporal(self.norm_time(x), need_weights=need_weights)
        return VideoOutput(self._classify(x + y), temporal, spatial)

    def step(self, frame: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """frame [B,3,H,W] and the past of the last step (None at the start) -> logits [B,classes] and the new past."""
        x, _ = self.frame_features(frame)
        y, past = self.temporal.step(self.norm_time(x), past)
        return self._classify(x + y), past

    def _classify(self, x: Tensor) -> Tensor:
        x = x + self.ffn(self.norm_ffn(x))
        logits: Tensor = self.head(x)
        return logits
