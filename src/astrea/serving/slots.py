"""Rows of several caches in one: rows join and leave between decoding steps.

Rows of different lengths are aligned at their last key; what stands before a shorter row is padding, which
`astrea.model.cache.Keys` has as not readable.

Letters: B rows, L keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache

from astrea.model.cache import AstreaCache
from astrea.serving.growing import GrowingLayer


def merged(caches: Sequence[Cache]) -> Cache:
    """The rows of all caches, one cache after another."""
    if len(caches) == 1:
        return caches[0]
    first = caches[0]
    for layers in zip(*(cache.layers for cache in caches), strict=True):
        if isinstance(layers[0], GrowingLayer):
            layers[0].join(layers[1:])
            continue
        layers[0].keys = _stacked([layer.keys for layer in layers])
        layers[0].values = _stacked([layer.values for layer in layers])
    return first


def compacted(kept: Sequence[int]) -> list[int]:
    """An order of rows that are kept, ascending, in which few are moved: each stays, or takes the place of one that
    leaves."""
    last = iter(row for row in kept if row >= len(kept))
    stay = set(kept)
    return [place if place in stay else next(last) for place in range(len(kept))]


def select_rows(cache: Cache, rows: Sequence[int]) -> Cache:
    """Some rows of a cache, in this order, without the padding that all of them have in front."""
    keys = AstreaCache(cache).keys()
    index = torch.tensor(rows, dtype=torch.long)
    padding = 0
    if keys is not None:
        filled_L = keys.readable[index.to(keys.readable.device)].any(0)
        # Empty expert slots are not readable either, but some token of the text before them is.
        padding = int(filled_L.int().argmax())
    layers: list[Any] = list(cache.layers)
    for layer in layers:
        if isinstance(layer, GrowingLayer):
            layer.keep(rows, padding)
            continue
        layer.keys = layer.keys[index.to(layer.keys.device), :, padding:]
        layer.values = layer.values[index.to(layer.values.device), :, padding:]
    return cache


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """(B, heads, L, width) tensors of different L and width as one: shorter rows padded in front, narrower ones behind
    (text alone has no words to match)."""
    length, width = (max(part.shape[axis] for part in parts) for axis in (2, 3))
    return torch.cat([pad(part, (0, width - part.shape[3], length - part.shape[2], 0)) for part in parts])
