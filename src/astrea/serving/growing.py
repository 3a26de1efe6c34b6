"""A cache that grows in place: a step writes its keys behind those that are there, and copies nothing.

Letters: B rows, L keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

SPARE = 64
"""Keys that there is room for behind those that are copied, when they have to be."""


def growing_cache() -> Cache:
    """An empty cache of `GrowingLayer`."""
    return Cache(layer_class_to_replicate=GrowingLayer)


class GrowingLayer(DynamicLayer):
    """A layer with room behind its keys and values (B, heads, L, width).

    Whoever selects, crops or repeats rows replaces both, as in every other layer; they are copied into new room when
    the next keys come. What was given out before is never written to, but for rows that have left (`keep`).
    """

    keys: Any
    values: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        self._rooms = Room(), Room()

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        """Put new keys and values behind those that are there; all of them."""
        rooms = self._rooms
        self.keys, self.values = rooms[0].behind(self.keys, key_states), rooms[1].behind(self.values, value_states)
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        return self.keys, self.values

    def keep(self, rows: Sequence[int], padding: int) -> None:
        """Only some rows, in this order, without the first ``padding`` keys."""
        rooms = self._rooms
        self.keys, self.values = rooms[0].kept(self.keys, rows, padding), rooms[1].kept(self.values, rows, padding)

    def join(self, others: Sequence[GrowingLayer]) -> None:
        """The rows of other layers behind one's own, all aligned at their last key."""
        layers = [self, *others]
        self.keys = self._rooms[0].stacked([layer.keys for layer in layers])
        self.values = self._rooms[1].stacked([layer.values for layer in layers])


class Room:
    """Where one tensor of a layer grows."""

    def __init__(self) -> None:
        self._all: Tensor | None = None
        self._filled: Tensor | None = None

    def behind(self, held: Tensor | None, new: Tensor) -> Tensor:
        """``held`` (B, heads, L, width) and ``new`` behind it.

        ``held`` is copied unless it is what was given out last and there is room behind it.
        """
        if held is None:
            return new
        past, length = held.shape[2], held.shape[2] + new.shape[2]
        room = self._all
        if room is None or held is not self._filled or length > room.shape[2]:
            room = held.new_empty(*held.shape[:2], length + SPARE, held.shape[3])
            room[:, :, :past] = held
        room[:, :, past:length] = new
        self._all, self._filled = room, room[:, :, :length]
        return self._filled

    def kept(self, held: Tensor, rows: Sequence[int], padding: int) -> Tensor:
        """Some rows of ``held``, in this order, without the first ``padding`` keys.

        Rows that only fill the places of those that leave are moved there and nothing else is copied, if ``held`` is
        what was given out last.
        """
        moved = [(place, row) for place, row in enumerate(rows) if place != row]
        room, length = self._all, held.shape[2]
        if room is None or held is not self._filled or any(row < len(rows) for _, row in moved):
            return held[torch.tensor(rows, device=held.device), :, padding:]
        for place, row in moved:
            room[place, :, padding:length] = held[row, :, padding:]
        self._all = room[: len(rows), :, padding:]
        self._filled = self._all[:, :, : length - padding]
        return self._filled

    def stacked(self, parts: Sequence[Tensor]) -> Tensor:
        """The rows of all parts, one part after another, shorter ones padded in front; in a room of their own."""
        length, rows = max(part.shape[2] for part in parts), sum(map(len, parts))
        room = parts[0].new_empty(rows, parts[0].shape[1], length + SPARE, parts[0].shape[3])
        done = 0
        for part in parts:
            mine = room[done : done + len(part)]
            mine[:, :, : length - part.shape[2]] = 0
            mine[:, :, length - part.shape[2] : length] = part
            done += len(part)
        self._all, self._filled = room, room[:, :, :length]
        return self._filled
