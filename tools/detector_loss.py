"""Task-aligned assignment and losses for the detector (TOOD, Feng et al. 2021; QFL/DFL, Li et al. 2020).

Deviations: boxes are learned by GIoU alone (the distances start trained), and points inside ignore regions of a
label carry no negative loss for that label.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def box_iou(a: Tensor, b: Tensor, generalised: bool = False) -> Tensor:
    """IoU, or GIoU (Rezatofighi et al. 2019), of xyxy boxes that broadcast."""
    low, high = torch.max(a[..., :2], b[..., :2]), torch.min(a[..., 2:], b[..., 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    area = lambda t: (t[..., 2:] - t[..., :2]).clamp(min=0).prod(-1)  # noqa: E731
    union = area(a) + area(b) - inter + 1e-7
    iou = inter / union
    if not generalised:
        return iou
    hull = (torch.max(a[..., 2:], b[..., 2:]) - torch.min(a[..., :2], b[..., :2])).clamp(min=0).prod(-1) + 1e-7
    return iou - (hull - union) / hull


def padded(rows: list[Tensor], device: torch.device) -> Tensor:
    """Lists of [n,6] -> [B,M,6]; weight -1 marks filling."""
    m = max(1, max(len(g) for g in rows))
    out = torch.zeros(len(rows), m, 6, device=device)
    out[..., 5] = -1
    for i, g in enumerate(rows):
        out[i, : len(g)] = g.to(device)
    return out


@torch.no_grad()
def assign(logits: Tensor, boxes: Tensor, points: Tensor, stride: Tensor, truth: Tensor, topk: int = 9):
    """Targets [B,N,C], target boxes [B,N,4], positive mask [B,N], soft value [B,N], loss weights [B,N,C]."""
    label, box, weight = truth[..., 0].long(), truth[..., 1:5], truth[..., 5]
    b, n, c = logits.shape
    m = truth.shape[1]
    sides = torch.cat([points[None, None] - box[:, :, None, :2], box[:, :, None, 2:] - points[None, None]], -1)
    inside = sides.min(-1).values > 0
    centre = (box[..., :2] + box[..., 2:]) / 2
    # a tiny box may hold no point: those within three quarters of a stride of its centre count
    near = (points[None, None] - centre[:, :, None]).abs().amax(-1) < stride[None, None] * 0.75
    candidate = (inside | near) & (weight > 0)[..., None]
    iou = box_iou(boxes[:, None], box[:, :, None]).clamp(0, 1)
    score = logits.sigmoid().gather(2, label[:, None].expand(b, n, m)).transpose(1, 2)
    align = (score.pow(0.5) * iou.pow(4.0) + 1e-9) * candidate
    value, index = align.topk(min(topk, n), -1)
    chosen = torch.zeros_like(align, dtype=torch.bool).scatter_(-1, index, value > 0) & candidate
    owner = torch.where(chosen, iou, -1.0).argmax(1)  # a point goes to the object it overlaps best
    chosen &= F.one_hot(owner, m).transpose(1, 2).bool()
    mine = align * chosen
    soft = mine / mine.amax(-1, keepdim=True).clamp(min=1e-9) * (iou * chosen).amax(-1, keepdim=True).clamp(min=0.05)
    positive, which = chosen.any(1), chosen.float().argmax(1)
    value = soft.gather(1, which[:, None]).squeeze(1) * positive
    target = torch.zeros_like(logits).scatter_(2, label.gather(1, which)[..., None], value[..., None])
    ignored = inside & (weight == 0)[..., None]
    weights = torch.ones_like(logits)
    for k in range(c):
        free = (ignored & (label == k)[..., None]).any(1)
        weights[..., k] = 1 - free.float() * (target[..., k] == 0)
    return target, box.gather(1, which[..., None].expand(-1, -1, 4)), positive, value, weights


def detection_loss(logits: Tensor, boxes: Tensor, points: Tensor, stride: Tensor, rows: list[Tensor]):
    """Loss, and (class, box, positives a picture) for the log. logits [B,N,C]; boxes [B,N,4] px; rows [n,6] each."""
    target, goal, positive, value, weights = assign(logits, boxes, points, stride, padded(rows, logits.device))
    norm = target.sum().clamp(min=1.0)
    p = logits.sigmoid().detach()
    focal = torch.where(target > 0, (target - p).abs() + 0.25, 0.75 * p.pow(2.0))
    cls = (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * focal * weights).sum() / norm
    if positive.any():
        box = ((1 - box_iou(boxes[positive], goal[positive], generalised=True)) * value[positive]).sum() / norm
    else:
        box = boxes.sum() * 0
    return cls + 2.0 * box, (cls.item(), box.item(), positive.sum().item() / len(rows))
