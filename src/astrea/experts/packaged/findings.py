"""What experts of photographs have in common: standard slots for places and sizes, boxes that overlap, features in
boxes.

Letters: B pictures, T findings, C channels, h w cells of a map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

VERTICAL, HORIZONTAL, SIZE = ("top", "bottom"), ("left", "right"), ("small", "large")
STEEP = 20.0
"""How fast "top" becomes "bottom" around the middle: within a tenth of the picture."""
MIDDLING, GROWTH = 0.3, 10.0
"""The share of the picture's side (as a square) that is neither small nor large, and how fast that changes."""


def side_words(centre_BT2: Tensor) -> Tensor:
    """How much a place (x, y as shares of the picture) is at the top, bottom, left and right: (B, T, 2) -> (B, T, 4),
    in the order of `VERTICAL` and `HORIZONTAL`, each pair summing to 1."""
    left, top = torch.sigmoid((0.5 - centre_BT2) * STEEP).unbind(-1)
    return torch.stack([top, 1 - top, left, 1 - left], -1)


def size_words(span_BT2: Tensor) -> Tensor:
    """How small and how large something is, by the area of its box (width, height as shares): (B, T, 2) -> (B, T, 2),
    in the order of `SIZE`, summing to 1."""
    side = span_BT2.clamp_min(0).prod(-1).sqrt()
    large = torch.sigmoid((side - MIDDLING) * GROWTH)
    return torch.stack([1 - large, large], -1)


def overlaps(box_BT4: Tensor) -> Tensor:
    """Intersection over union of every pair of boxes (x0, y0, x1, y1): (B, T, T)."""
    one, two = box_BT4.unsqueeze(2), box_BT4.unsqueeze(1)
    corner = torch.maximum(one[..., :2], two[..., :2])
    shared = (torch.minimum(one[..., 2:], two[..., 2:]) - corner).clamp_min(0).prod(-1)
    area = (box_BT4[..., 2:] - box_BT4[..., :2]).clamp_min(0).prod(-1)
    return shared / (area.unsqueeze(2) + area.unsqueeze(1) - shared).clamp_min(1e-9)


def suppress(box_BT4: Tensor, score_BT: Tensor, most: float) -> Tensor:
    """Non-maximum suppression among boxes with falling scores: the scores, 0 where a box overlaps a kept better one by
    more than ``most``."""
    close, score_BT = overlaps(box_BT4) > most, score_BT.clone()
    for place in range(1, score_BT.shape[1]):
        covered = (close[:, place, :place] & (score_BT[:, :place] > 0)).any(-1)
        score_BT[:, place] = score_BT[:, place].masked_fill(covered, 0)
    return score_BT


def pooled_in_boxes(maps_BChw: Tensor, box_BT4: Tensor, points: int = 3) -> Tensor:
    """The mean of features at ``points`` x ``points`` places inside each box: (B, T, C)."""
    share = (torch.arange(points, device=box_BT4.device, dtype=box_BT4.dtype) + 0.5) / points
    inside = torch.stack(torch.meshgrid(share, share, indexing="xy"), -1).flatten(0, 1)
    start, span = box_BT4[..., None, :2], (box_BT4[..., 2:] - box_BT4[..., :2]).unsqueeze(2)
    at_BTP2 = 2 * (start + span * inside) - 1
    return F.grid_sample(maps_BChw, at_BTP2, padding_mode="border", align_corners=False).mean(-1).transpose(1, 2)
