"""What later steps need to know of every key that a cache holds, kept in the cache itself.

It is one more layer of the cache: what rolls back, reorders, repeats or empties a cache does the same to it.

Letters: B rows, L keys, D language-model width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer

from astrea.common.transformers_compat import room_of


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a batch of rows.

    readable: (B, L) bool, no padding and no empty expert slot. bias: (B, L), what the row's question adds to its
    attention score of the key (0 for text). words: (B, L, D) what words are matched with, zero for text, or None.
    positions: (B, L) long. asked: (B, L) bool, which tokens were the question when pictures were read.
    """

    readable: Tensor
    bias: Tensor
    words: Tensor | None
    positions: Tensor
    asked: Tensor

    def first(self, count: int) -> Keys:
        """The first keys of every row."""
        return Keys(*(part if part is None else part[:, :count] for part in self._parts()))  # type: ignore[arg-type]

    def then(self, new: Keys) -> Keys:
        """These keys and new ones behind them."""
        width = max(0 if keys.words is None else keys.words.shape[-1] for keys in (self, new))
        pairs = zip(self._with_words(width)._parts(), new._with_words(width)._parts(), strict=True)
        return Keys(*(None if one is None else torch.cat([one, other], 1) for one, other in pairs))  # type: ignore[arg-type,list-item]

    def _with_words(self, width: int) -> Keys:
        if self.words is not None or not width:
            return self
        return replace(self, words=self.bias.new_zeros(*self.bias.shape, width))

    def _parts(self) -> tuple[Tensor | None, ...]:
        return self.readable, self.bias, self.words, self.positions, self.asked

    @staticmethod
    def of_text(real_BL: Tensor, like: Tensor) -> Keys:
        """Keys of text alone. ``like`` says which type and place the bias has."""
        positions = (real_BL.long().cumsum(1) - 1).clamp_min(0)
        return Keys(real_BL, torch.zeros_like(real_BL, dtype=like.dtype), None, positions, torch.zeros_like(real_BL))


class KeyLayer(DynamicLayer):
    """`Keys` as a layer of a cache: one "head", whose "keys" (B, 1, L, 4) are all but the words, its "values" them."""

    keys: Any
    values: Any

    def put(self, keys: Keys) -> None:
        """Hold these keys instead of those before."""
        columns = (keys.readable, keys.bias, keys.positions, keys.asked)
        self.keys = torch.stack([column.to(keys.bias.dtype) for column in columns], -1).unsqueeze(1).detach()
        words = self.keys.new_zeros(*self.keys.shape[:3], 0) if keys.words is None else keys.words.unsqueeze(1)
        self.values = words.detach()
        self.dtype, self.device, self.is_initialized = self.keys.dtype, self.keys.device, True

    def held(self) -> Keys:
        """The keys."""
        readable, bias, positions, asked = self.keys[:, 0].unbind(-1)
        words = self.values[:, 0] if self.values.shape[-1] else None
        return Keys(readable.bool(), bias, words, positions.long(), asked.bool())

    def reset(self) -> None:
        """Forget all keys."""
        self.keys = self.values = None
        self.is_initialized = False


def layer_of(cache: Cache) -> KeyLayer | None:
    """The layer of a cache that holds its `Keys`, if it has one."""
    return next((layer for layer in cache.layers if isinstance(layer, KeyLayer)), None)


def recall(cache: Cache, length: int) -> Keys | None:
    """What is known of the ``length`` keys in a cache; None where somebody else has filled it."""
    layer = layer_of(cache)
    if layer is None or layer.get_seq_length() < length:
        return None
    # A cache of fixed room is rolled back without a word to its layers.
    return layer.held().first(length)


def remember(cache: Cache, keys: Keys) -> None:
    """Keep what is known of all keys in a cache with them."""
    layer = layer_of(cache)
    if layer is None:
        layer = KeyLayer()
        # What some releases ask every layer of a cache for, where they ask any.
        for name in ("max_cache_len", "max_batch_size", "batch_size"):
            if hasattr(cache.layers[0], name):
                setattr(layer, name, getattr(cache.layers[0], name))
        cache.layers.append(layer)
    layer.put(keys)


def as_wide_as(cache: Cache | None, mask_BHKL: Tensor) -> Tensor:
    """The mask for as many keys as a cache gives out: one of fixed room gives out its empty places too."""
    room = None if cache is None else room_of(cache)
    if room is None:
        return mask_BHKL
    return pad(mask_BHKL, (0, room - mask_BHKL.shape[-1]), value=torch.finfo(mask_BHKL.dtype).min)


def past_mask(mask: Tensor | None, like: Tensor, past: int) -> Tensor:
    """Which of the keys in a cache that somebody else has filled are no padding: (B, past) bool."""
    if mask is None or mask.shape[1] < past + like.shape[1]:
        return torch.ones(len(like), past, dtype=torch.bool, device=like.device)
    return mask[:, :past].bool()
