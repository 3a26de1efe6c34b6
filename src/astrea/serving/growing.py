"""A cache that grows in place: a step writes its keys behind those that are there, and copies nothing.

Letters: B rows, L keys.
"""

from __future__ import annotations

from typing import Any

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
    the next keys come. What was given out before is never written to.
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
