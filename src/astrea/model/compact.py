"""Rows without what nobody reads: padding, and slots that experts left empty, take a language model as long as words.

Letters: B rows, L tokens of a row, K tokens of the longest row once it is compact.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from astrea.model.reading import Reading


def compact(reading: Reading) -> tuple[Reading, Tensor]:
    """The same rows, in the same order, without tokens that nobody reads; behind shorter rows some of them are left.
    Rows that go on from a cache have to stay as they are.

    Returns:
        The rows, and where in them each token stands now, (B, L) long; of a token that is left out, anywhere.
    """
    readable_BL = reading.keys.readable
    length = readable_BL.shape[1]
    in_order_BL = torch.arange(length, device=readable_BL.device).expand_as(readable_BL)
    if readable_BL.is_meta:  # what is there is not known, so all of it might be; the work is done, to be counted
        order_BK = place_BL = in_order_BL
    elif (longest := max(1, int(readable_BL.sum(1).max()))) == length:
        return reading, in_order_BL
    else:
        order_BK = (~readable_BL).long().argsort(dim=1, stable=True)[:, :longest]
        place_BL = (readable_BL.long().cumsum(1) - 1).clamp_min(0)
    mask = picked(reading.mask.transpose(1, 2), order_BK).transpose(1, 2)
    mask = picked(mask.transpose(1, 3), order_BK).transpose(1, 3)
    embeds, positions = picked(reading.embeds, order_BK), picked(reading.positions, order_BK)
    return replace(reading, embeds=embeds, mask=mask, positions=positions, keys=reading.keys.at(order_BK)), place_BL


def picked(values_BL: Tensor, order_BK: Tensor) -> Tensor:
    """Some tokens of every row: (B, L, ...) -> (B, K, ...)."""
    index = order_BK.view(*order_BK.shape, *[1] * (values_BL.dim() - 2))
    return values_BL.gather(1, index.expand(-1, -1, *values_BL.shape[2:]))
