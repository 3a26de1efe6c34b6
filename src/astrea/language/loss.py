"""The loss of a row of text.

Letters: B rows, L length, V words, A tokens with a label.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.common.errors import AstreaError


def weighted_loss(
    logits_BLV: Tensor, labels_BL: Tensor, weights_BL: Tensor | None, total: Tensor | float | None = None
) -> Tensor:
    """Weighted mean next-token cross-entropy; an all-masked batch is an error, not a loss of 0.

    Args:
        total: what the weights add up to in the whole batch, where these rows are a part of it. A part may have no
            label: its loss is 0, with gradients that are 0.

    Raises:
        AstreaError: no token of the batch has a label.
    """
    return label_loss(logits_BLV[:, :-1][labels_BL[:, 1:] != -100], labels_BL, weights_BL, total)


def label_loss(
    logits_AV: Tensor, labels_BL: Tensor, weights_BL: Tensor | None, total: Tensor | float | None = None
) -> Tensor:
    """`weighted_loss` of what was said in the place of every token with a label, in reading order."""
    target = labels_BL[:, 1:]
    keep = target != -100
    if not bool(keep.any() if total is None else total > 0):
        raise AstreaError("every label of this batch is masked", "check the chat template and the answers")
    loss = F.cross_entropy(logits_AV.float(), target[keep], reduction="none")
    weight = torch.ones_like(loss) if weights_BL is None else weights_BL[:, 1:][keep]
    return (loss * weight).sum() / (weight.sum().clamp_min(1e-6) if total is None else total)
