"""One cache for keys, values, and what later steps need to know of every key: bias, words and position.

That is one more layer of whatever cache of transformers is used (dynamic, static, offloaded, quantised): what rolls
back, reorders, repeats or empties the cache does the same to it.

Letters: B rows, L keys, D language-model width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer

from astrea.common.errors import AstreaError
from astrea.common.transformers_compat import keep_every_key, room_of, take_back


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

    def at(self, order_BK: Tensor) -> Keys:
        """Some keys of every row, in this order."""
        rows = torch.arange(len(order_BK), device=order_BK.device).unsqueeze(1)
        return Keys(*(part if part is None else part[rows, order_BK] for part in self._parts()))  # type: ignore[arg-type]

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


@dataclass(frozen=True, slots=True)
class AstreaCache:
    """A cache of transformers together with the `Keys` of all that is in it.

    The cache itself is the one that was given, and stays in the hands of whoever gave it.
    """

    cache: Cache

    @property
    def length(self) -> int:
        """How many keys of each row are in it."""
        return int(self.cache.get_seq_length())

    def keys(self) -> Keys | None:
        """What is known of its keys; None where nothing is in it, or something that Astrea has not read."""
        layer, length = self._layer(), self.length
        if not length or layer is None or layer.get_seq_length() < length:
            return None
        # A cache of fixed room is rolled back without a word to its layers.
        return layer.held().first(length)

    def keep(self, keys: Keys) -> None:
        """Keep what is known of all keys, once the language model has put as many into the cache."""
        if self.length != keys.positions.shape[1]:
            return
        layer = self._layer()
        if layer is None:
            layer = KeyLayer()  # type: ignore[no-untyped-call]
            # What some releases ask every layer of a cache for, where they ask any.
            for name in ("max_cache_len", "max_batch_size", "batch_size"):
                if hasattr(self.cache.layers[0], name):
                    setattr(layer, name, getattr(self.cache.layers[0], name))
            self.cache.layers.append(layer)
        layer.put(keys)

    def prepare(self, new: int, *, windows: bool) -> None:
        """Make it fit for so many new keys of each row.

        Args:
            windows: whether the language model has attention windows.

        Raises:
            AstreaError: there is no room for them.
        """
        past = self.length
        if windows and not past:
            # A cache made for windows drops keys by their number; here windows count positions: a picture is one.
            keep_every_key(self.cache)
        room = room_of(self.cache)
        if room is not None and past + new > room:
            raise AstreaError(
                f"the cache has room for {room} tokens; {past + new} are needed", "make a larger one (max_cache_len)"
            )

    def widened(self, mask_BHKL: Tensor) -> Tensor:
        """The mask for as many keys as it gives out: one of fixed room gives out its empty places too."""
        room = room_of(self.cache)
        if room is None:
            return mask_BHKL
        return pad(mask_BHKL, (0, room - mask_BHKL.shape[-1]), value=torch.finfo(mask_BHKL.dtype).min)

    def forget(self, tokens: int) -> None:
        """Take back the last tokens."""
        take_back(self.cache, tokens)

    def _layer(self) -> KeyLayer | None:
        return next((layer for layer in self.cache.layers if isinstance(layer, KeyLayer)), None)


def past_mask(mask: Tensor | None, like: Tensor, past: int) -> Tensor:
    """Which of the keys in a cache that others have filled are no padding: (B, past) bool."""
    if mask is None or mask.shape[1] < past + like.shape[1]:
        return torch.ones(len(like), past, dtype=torch.bool, device=like.device)
    return mask[:, :past].bool()
