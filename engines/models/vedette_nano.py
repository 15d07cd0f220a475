"""``vedette-nano``: one convolutional pass over a picture gives boxes, appearance and scene tokens.

The trunk is NanoDet-g (RangiLyu/nanodet, Apache-2.0): a small CSP network, a PAN without
convolutions, and one 3x3 + 1x1 head a level that answers, at every point, class logits (Quality
Focal Loss) and four discrete distances to the box sides (Distribution Focal Loss, Li et al. 2020).
Batch norm is folded, so a layer is a convolution with bias and a leaky ReLU.

Added here: class rows pruned to the labels we ship, decoding and top-K inside the graph, a 64-d
appearance embedding a candidate, and 7x7 scene tokens, all read off the same feature maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vedette.engines.api import LABELS
from vedette.engines.coco import COCO_CLASSES

STRIDES = (8, 16, 32)
#: candidates before NMS: 128 cost .015 AP on COCO people against 1000, 256 cost nothing
TOPK = 256
#: distances are expectations over 0..REG_MAX strides
REG_MAX = 10
EMBEDDING_DIM = 64
SCENE_GRID = 7
SCENE_DIM = 128
#: the grid of points that the embedding reads inside a box, and how many stripes have a colour histogram
EMBED_ROWS, EMBED_COLS, STRIPES = 12, 4, 6
STEM = 32
#: candidates of at least this score say what is ordinary in a picture; the prior weighs as much as one or two people
ORDINARY_SCORE, ORDINARY_PRIOR = 0.3, 4.0
#: cosine of two strangers: a constant component of the embedding, so that cosines span what thresholds expect
STRANGER_COSINE = 0.5
#: grey levels at which colours are told apart by the histograms
COLOUR_SCALE = 28.0
#: colour anchors, BGR 0-255: the bins of a soft histogram
PALETTE = (
    (20, 20, 20), (70, 70, 70), (120, 120, 120), (170, 170, 170), (225, 225, 225), (50, 50, 130),
    (70, 70, 200), (130, 70, 50), (190, 110, 70), (60, 110, 60), (90, 170, 90), (60, 150, 190),
    (110, 200, 230), (90, 110, 150), (150, 170, 200), (140, 70, 140),
)  # fmt: skip


def conv(c_in: int, c_out: int, k: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution with bias, then LeakyReLU(0.1): batch norm is folded into the convolution."""
    return nn.Sequential(nn.Conv2d(c_in, c_out, k, stride, k // 2), nn.LeakyReLU(0.1))


class Pair(nn.Module):
    """Two 3x3 convolutions whose outputs are both kept: [B,c,H,W] -> [B,2h,H,W]."""

    def __init__(self, c: int, h: int) -> None:
        super().__init__()
        self.a, self.b = conv(c, h), conv(h, h)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        return torch.cat([self.b(a), a], 1)


class Stage(nn.Module):
    """A CSP stage: [B,c_in,H,W] -> [B,2c,H/stride,W/stride]."""

    def __init__(self, c_in: int, c: int, pairs: int, stride: int) -> None:
        super().__init__()
        self.down = conv(c_in, c, 3, stride)
        self.pairs = nn.Sequential(*[Pair(c, c // 2) for _ in range(pairs)])
        self.fuse = conv(c, c)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return torch.cat([self.fuse(self.pairs(x)), x], 1)


class Head(nn.Module):
    """One level's head: features [B,128,h,w] -> rows [B,R,h,w]."""

    def __init__(self, c: int, rows: int) -> None:
        super().__init__()
        self.tower, self.out = conv(c, c), nn.Conv2d(c, rows, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.tower(x))


@dataclass(slots=True)
class Raw:
    """What training needs: logits [B,N,R] a class row, dist [B,N,4*(REG_MAX+1)], points [N,2] and stride [N] in px."""

    logits: Tensor
    dist: Tensor
    points: Tensor
    stride: Tensor
    low: Tensor  # [B,3+32,H/2,W/2], mean colour 0-255 and the first convolution
    levels: list[Tensor]  # PAN outputs, strides 8, 16, 32


class Embedder(nn.Module):
    """Appearance of a box in 64 numbers: colours and edges of its rows, as far as they differ from what is ordinary here.

    48 points a box are read off the first convolution and the colours, both at stride 2; deeper maps tell classes apart,
    not people, and made it worse. Row means and six soft colour histograms go through one linear map, fitted by
    `tools/train_detector_embedding.py` (discriminant analysis: small within a person, large between people). Candidates
    of the same label in the picture then give the mean that is subtracted, shrunk to the mean of training where there
    are few: light and camera change it, and what everybody wears tells nobody apart.
    """

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(EMBED_ROWS * STEM + STRIPES * len(PALETTE), EMBEDDING_DIM - 1)
        ys = (torch.arange(EMBED_ROWS) + 0.5) / EMBED_ROWS
        xs = 1 / 6 + (torch.arange(EMBED_COLS) + 0.5) / EMBED_COLS * 2 / 3
        grid = torch.stack(torch.meshgrid(ys, xs, indexing="ij"), -1).reshape(-1, 2)
        self.register_buffer("grid", grid, persistent=False)  # [48,2] (y, x) inside the box
        anchors = torch.tensor(PALETTE, dtype=torch.float32)
        sharp = 1.0 / (2 * COLOUR_SCALE**2)
        self.register_buffer("anchors", 2 * sharp * anchors.T, persistent=False)
        self.register_buffer("anchor_bias", -sharp * (anchors**2).sum(1), persistent=False)

    def features(self, low: Tensor, boxes: Tensor) -> Tensor:
        """low [B,35,h,w] and boxes [B,K,4] normalised -> [B,K,480]: row means, then square roots of histograms."""
        b, k = boxes.shape[:2]
        xy, wh = boxes[..., :2], boxes[..., 2:] - boxes[..., :2]
        x = xy[..., 0:1] + wh[..., 0:1] * self.grid[:, 1]  # [B,K,48]
        y = xy[..., 1:2] + wh[..., 1:2] * self.grid[:, 0]
        points = read_points(low, x, y)  # [BK,48,35]
        rows = points[..., 3:].unflatten(1, (EMBED_ROWS, EMBED_COLS)).mean(2).flatten(1)
        bins = (points[..., :3] @ self.anchors + self.anchor_bias).softmax(-1)
        stripes = bins.unflatten(1, (STRIPES, -1)).mean(2)
        return torch.cat([rows, (stripes.flatten(1) + 1e-4).sqrt()], 1).view(b, k, -1)

    def forward(self, low: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        """boxes [B,K,4] normalised, scores and labels [B,K] -> [B,K,64], each of length 1."""
        # flattened to a matrix, the exporter writes Gemm and keeps the name of the weight
        e = self.project(self.features(low, boxes).flatten(0, 1)).view(*labels.shape, -1)
        weight = (labels[:, :, None] == labels[:, None, :]) * F.relu(scores - ORDINARY_SCORE)[:, None, :]  # [B,K,K]
        e = e - weight @ e / (weight.sum(-1, keepdim=True) + ORDINARY_PRIOR)
        e = e * torch.rsqrt((e * e).sum(-1, keepdim=True) / (1 - STRANGER_COSINE) + 1e-9)
        return F.pad(e, (0, 1), value=STRANGER_COSINE**0.5)


def read_points(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Nearest cell of image [B,C,h,w] at normalised x, y [B,K,P] -> [B*K,P,C]."""
    b, c, h, w = image.shape
    rows = image.flatten(2).transpose(1, 2).reshape(b * h * w, c)
    cell = (y * h).clamp(0, h - 1).long() * w + (x * w).clamp(0, w - 1).long()
    cell = cell + torch.arange(b, device=cell.device).view(b, 1, 1) * (h * w)
    return rows[cell.reshape(-1)].view(b * x.shape[1], x.shape[2], c)


class SceneHead(nn.Module):
    """Scene tokens: PAN levels 16 and 32 -> [B,49,128], layer-normalised, row-major over a 7x7 grid."""

    def __init__(self, c: int = 128) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2 * c, SCENE_DIM, 1)
        self.norm = nn.LayerNorm(SCENE_DIM)
        axis = (torch.arange(2 * SCENE_GRID) + 0.5) / (2 * SCENE_GRID)  # two samples a cell and axis
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        self.register_buffer("grid", torch.stack([x, y]).view(2, 1, 1, -1), persistent=False)  # [2,1,1,196]
        with torch.no_grad():
            eye = torch.eye(SCENE_DIM).view(SCENE_DIM, c, 1, 1)
            self.mix.weight.copy_(torch.cat([eye, eye], 1))
            self.mix.bias.zero_()

    def forward(self, p4: Tensor, p5: Tensor) -> Tensor:
        x = self.mix(torch.cat([F.avg_pool2d(p4, 2), p5], 1))
        b = x.shape[0]
        grid = self.grid.expand(2, b, 1, -1)
        x = read_points(x, grid[0], grid[1]).view(b, SCENE_GRID, 2, SCENE_GRID, 2, SCENE_DIM).mean((2, 4))
        return self.norm(x.flatten(1, 2))


class VedetteNano(nn.Module):
    """u8 [B,H,W,3] BGR (H, W multiples of 32, centred letterbox filled with 0) -> candidates before NMS.

    Returns boxes [B,K,4] normalised to the canvas, scores [B,K], labels i32 [B,K], embeddings [B,K,64],
    scene [B,49,128]. ``topk``: raising it keeps more weak candidates of a crowd, at a few us each.
    """

    def __init__(self, topk: int = TOPK) -> None:
        super().__init__()
        self.topk = topk
        spans, n = [], 0
        for label in LABELS:
            spans.append((n, n + len(COCO_CLASSES[label])))
            n += len(COCO_CLASSES[label])
        self.spans, self.rows = spans, n
        self.stem = conv(3, 32, 3, 2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.stage1 = Stage(32, 32, 1, 1)
        self.stage2 = Stage(64, 64, 2, 2)
        self.stage3 = Stage(128, 128, 2, 2)
        self.stage4 = Stage(256, 256, 3, 2)
        self.laterals = nn.ModuleList(nn.Conv2d(c, 128, 1) for c in (128, 256, 512))
        self.heads = nn.ModuleList(Head(128, n + 4 * (REG_MAX + 1)) for _ in STRIDES)
        self.embed = Embedder()
        self.scene = SceneHead()
        self.register_buffer("mean", torch.tensor([103.53, 116.28, 123.675]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("gain", 1 / torch.tensor([57.375, 57.12, 58.395]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("bins", torch.arange(REG_MAX + 1.0), persistent=False)

    def trunk_convolutions(self) -> list[nn.Conv2d]:
        """Every convolution of the NanoDet-g part, in the order of the published graph's weight numbers."""
        convs = lambda m: [c for c in m.modules() if isinstance(c, nn.Conv2d)]  # noqa: E731
        out = convs(self.stem) + convs(self.stage1) + convs(self.stage2) + [self.laterals[0]]
        out += [*convs(self.stage3), self.laterals[1], *convs(self.stage4), self.laterals[2]]
        first, second, third = self.heads
        # the published graph interleaves: tower 8, tower 16, out 8, tower 32, out 16, out 32
        return [*out, first.tower[0], second.tower[0], first.out, third.tower[0], second.out, third.out]

    def pyramid(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Normalised picture [B,3,H,W] -> first convolution [B,32,H/2,W/2] and PAN maps [B,128,.,.] at 8, 16, 32."""
        stem = self.stem(x)
        s2 = self.stage2(self.stage1(self.pool(stem)))
        s3 = self.stage3(s2)
        l3, l4, l5 = (lat(s) for lat, s in zip(self.laterals, (s2, s3, self.stage4(s3)), strict=True))
        up = lambda t: F.interpolate(t, scale_factor=2.0, mode="bilinear", align_corners=False)  # noqa: E731
        t4 = l4 + up(l5)
        p3 = l3 + up(t4)
        p4 = t4 + F.avg_pool2d(p3, 2)
        return stem, [p3, p4, l5 + F.avg_pool2d(p4, 2)]

    def raw(self, bgr: Tensor) -> Raw:
        """Float picture [B,3,H,W] BGR 0-255 -> `Raw`."""
        stem, levels = self.pyramid((bgr - self.mean) * self.gain)
        answers = [head(p) for head, p in zip(self.heads, levels, strict=True)]
        rows = torch.cat([o.flatten(2) for o in answers], 2).transpose(1, 2)
        points, stride = grid_points([(o.shape[-2], o.shape[-1]) for o in answers], bgr.device)
        low = self.low_maps(bgr, stem)
        return Raw(rows[..., : self.rows], rows[..., self.rows :], points, stride, low, levels)

    def low_maps(self, bgr: Tensor, stem: Tensor) -> Tensor:
        """What the embedding reads: mean colour and first convolution, [B,3+32,H/2,W/2]."""
        return torch.cat([F.avg_pool2d(bgr, 2), stem], 1)

    def boxes_px(self, dist: Tensor, points: Tensor, stride: Tensor) -> Tensor:
        """Distance logits [...,44] at points [...,2] of stride [...,1] -> xyxy [...,4] in canvas pixels."""
        d = dist.unflatten(-1, (4, REG_MAX + 1)).softmax(-1)
        d = (d * self.bins).sum(-1) * stride
        return torch.cat([points - d[..., :2], points + d[..., 2:]], -1)

    def label_logits(self, logits: Tensor) -> Tensor:
        """Class rows [...,R] -> label logits [...,8], the largest row of each label."""
        return torch.stack([logits[..., a:b].amax(-1) for a, b in self.spans], -1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        b, height, width = pixels.shape[:3]
        raw = self.raw(pixels.permute(0, 3, 1, 2).to(self.mean.dtype))
        n = raw.logits.shape[1]
        top = raw.logits.amax(-1).topk(self.topk, 1).indices  # [B,K]
        flat = (top + torch.arange(b, device=top.device).view(b, 1) * n).reshape(-1)
        pick = torch.cat([raw.logits, raw.dist], -1).reshape(b * n, -1)[flat].view(b, self.topk, -1)
        points, stride = raw.points[top.reshape(-1)], raw.stride[top.reshape(-1)]
        boxes = self.boxes_px(
            pick[..., self.rows :], points.view(b, self.topk, 2), stride.view(b, self.topk, 1)
        ) / torch.tensor([width, height, width, height], device=pick.device, dtype=pick.dtype)
        scores, labels = self.label_logits(pick[..., : self.rows]).max(-1)
        boxes, scores = boxes.clamp(0.0, 1.0), scores.sigmoid()
        return (
            boxes,
            scores,
            labels.to(torch.int32),
            self.embed(raw.low, boxes, scores, labels),
            self.scene(raw.levels[1], raw.levels[2]),
        )


def grid_points(shapes: list[tuple[int, int]], device: Any = None) -> tuple[Tensor, Tensor]:
    """Points [N,2] (x, y) px and strides [N] of all levels; NanoDet-g's grid: i * s + (s - 1) / 2."""
    points, strides = [], []
    for (h, w), s in zip(shapes, STRIDES, strict=True):
        y, x = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
        points.append(torch.stack([x, y], -1).reshape(-1, 2).float() * s + (s - 1) / 2)
        strides.append(torch.full_like(points[-1][:, 0], float(s)))
    return torch.cat(points), torch.cat(strides)


def from_nanodet_g(path: str, topk: int = TOPK) -> VedetteNano:
    """A `VedetteNano` with the published NanoDet-g weights (ONNX), class rows pruned to our labels."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    const = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    const.update({n.output[0]: const[n.input[0]] for n in graph.node if n.op_type == "Cast" and n.input[0] in const})
    bias = {n.input[0]: const[n.input[1]].reshape(-1) for n in graph.node if n.op_type == "Add" and n.input[1] in const}
    nodes = sorted((n for n in graph.node if n.op_type == "Conv"), key=lambda n: int(n.input[1].lstrip("w")))
    net = VedetteNano(topk)
    keep = [r for label in LABELS for r in COCO_CLASSES[label]] + list(range(80, 80 + 4 * (REG_MAX + 1)))
    layers = net.trunk_convolutions()
    if len(layers) != len(nodes):
        raise ValueError(f"{path}: a NanoDet-g graph has {len(layers)} convolutions, got {len(nodes)}")
    with torch.no_grad():
        for layer, node in zip(layers, nodes, strict=True):
            w = torch.from_numpy(const[node.input[1]].astype("float32"))
            b = torch.from_numpy(bias[node.output[0]].astype("float32"))
            if len(w) == 124:
                w, b = w[keep], b[keep]
            if w.shape != layer.weight.shape:
                raise ValueError(f"{path}: {node.input[1]} needs {list(layer.weight.shape)}, got {list(w.shape)}")
            layer.weight.copy_(w)
            layer.bias.copy_(b)
    return net
