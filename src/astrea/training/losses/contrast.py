"""Momentum contrast: an EMA copy of adapters and heads, and a queue that knows whose embeddings it holds.

After MoCo (arXiv 1911.05722) and ALBEF (arXiv 2107.07651), with two differences: only adapters and heads have an EMA
copy (the experts are frozen), and entries carry sample and caption ids, so that a duplicate is never a negative.

Letters: B batch, Q queue length, P contrast width.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.alignment.alignment import Alignment

LOG_TEMPERATURES = (math.log(0.001), math.log(0.5))

ALL = slice(None)


class MomentumQueue(nn.Module):
    """The last Q (picture, text) embeddings with their ids. Empty slots have id -1 and never count.

    Pushing replaces the tensors instead of writing into them, so that a graph that still holds the old ones is safe.
    """

    picture: Tensor
    text: Tensor
    ids: Tensor
    pointer: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("picture", torch.zeros(size, width))
        self.register_buffer("text", torch.zeros(size, width))
        self.register_buffer("ids", torch.full((size, 2), -1, dtype=torch.long))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, picture_BP: Tensor, text_BP: Tensor, ids_B2: Tensor) -> None:
        """Add a batch, over the oldest entries."""
        if self.size == 0:
            return
        keep = min(len(ids_B2), self.size)
        where = (self.pointer + torch.arange(keep, device=self.pointer.device)) % self.size
        self.picture = self.picture.index_copy(0, where, picture_BP[:keep].detach())
        self.text = self.text.index_copy(0, where, text_BP[:keep].detach())
        self.ids = self.ids.index_copy(0, where, ids_B2[:keep])
        self.pointer = (self.pointer + keep) % self.size

    @torch.no_grad()
    def clear(self) -> None:
        """Forget everything: the embeddings of one alignment phase mean nothing to the next."""
        self.ids = torch.full_like(self.ids, -1)
        self.pointer = torch.zeros_like(self.pointer)


class MomentumContrast(nn.Module):
    """The EMA copy, the queue, the learned temperature, and the loss between pictures and texts."""

    def __init__(self, alignment: Alignment, *, width: int, momentum: float, queue: int, temperature: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.copy = copy.deepcopy(alignment).requires_grad_(False)
        self.queue = MomentumQueue(queue, width)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    def temperature(self) -> Tensor:
        """The learned temperature, clamped to [0.001, 0.5]."""
        return self.log_temperature.clamp(*LOG_TEMPERATURES).exp()

    @torch.no_grad()
    def follow(self, alignment: Alignment) -> None:
        """After a step: move the copy (1 - momentum) towards the weights, and the temperature back into its bounds."""
        for slow, fast in zip(self.copy.parameters(), alignment.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.momentum)
        # Beyond its bounds the temperature would have no gradient and could never come back.
        self.log_temperature.clamp_(*LOG_TEMPERATURES)

    def loss(
        self,
        picture: Tensor,
        text: Tensor,
        picture_key: Tensor,
        text_key: Tensor,
        ids: Tensor,
        soft: float,
        *,
        own: slice = ALL,
    ) -> Tensor:
        """Two-way momentum InfoNCE (ALBEF, equations 1 to 6, with ids).

        Args:
            picture, text: (B, P) unit vectors with gradient; or only the ``own`` rows of them.
            picture_key, text_key: (B, P) from the EMA copy, no gradient.
            ids: (B, 2) sample id and caption id. A key is a positive of a query if either id is the same.
            soft: alpha, weight of the momentum model's own similarities in the target.
            own: which queries of the batch are here. The loss is their part of the batch's: over all parts it adds up.
        """
        known = self.queue.ids[:, 0] >= 0
        pictures = torch.cat([picture_key, self.queue.picture[known]])
        texts = torch.cat([text_key, self.queue.text[known]])
        same = positives(ids[own], torch.cat([ids, self.queue.ids[known]]))
        scale = 1 / self.temperature()
        hard = same / same.sum(1, keepdim=True)

        def one_way(query: Tensor, own_key: Tensor, keys: Tensor) -> Tensor:
            with torch.no_grad():
                target = soft * (own_key @ keys.T * scale).softmax(1) + (1 - soft) * hard
            return -(target * (query @ keys.T * scale).log_softmax(1)).sum(1).mean() * (len(query) / len(ids))

        return (one_way(picture, picture_key[own], texts) + one_way(text, text_key[own], pictures)) / 2


def positives(ids_B2: Tensor, keys_K2: Tensor) -> Tensor:
    """(B, K) float: 1 where sample or caption id is the same."""
    return (ids_B2[:, None, :] == keys_K2[None, :, :]).any(-1).float()


def agreement(query_BP: Tensor, other_BP: Tensor, ids_B2: Tensor, temperature: Tensor, own: slice = ALL) -> Tensor:
    """In-batch InfoNCE of one expert's pooled embedding against that of the experts already aligned. ``own``: which
    queries of the batch are here, as in `MomentumContrast.loss`."""
    same = positives(ids_B2[own], ids_B2)
    score = query_BP @ F.normalize(other_BP, dim=-1).T / temperature
    mean = -(same / same.sum(1, keepdim=True) * score.log_softmax(1)).sum(1).mean()
    return mean * (len(query_BP) / len(ids_B2))
