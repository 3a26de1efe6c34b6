"""What differs between the releases of transformers that Astrea works with, in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import modeling_gguf_pytorch_utils
from transformers.cache_utils import Cache, DynamicLayer, StaticCache, StaticLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"
"""What a model calls the cache that it takes and returns: "cache" since release 5.24, "past_key_values" before."""


@contextmanager
def gguf_progress(progress: Callable[[int, int], None]) -> Iterator[None]:
    """Inside, transformers tells ``progress`` how many tensors of a GGUF file it has dequantised, and of how many,
    instead of drawing a bar of its own that `quiet` does not reach."""

    def bar(tensors: Iterable[Any], **_: Any) -> Iterator[Any]:
        every = list(tensors)
        for number, tensor in enumerate(every):
            progress(number, len(every))
            yield tensor
        progress(len(every), len(every))

    names = vars(modeling_gguf_pytorch_utils)
    drawn = names.get("tqdm")
    names["tqdm"] = bar
    try:
        yield
    finally:
        names["tqdm"] = drawn


def cache_of(found: Any) -> Cache | None:
    """The cache in what a model returned, or in what ``generate`` is about to give it."""
    return found.get(CACHE)  # type: ignore[no-any-return]


def take_back(cache: Cache, tokens: int) -> None:
    """Forget the last tokens of a cache; of one with fixed room only all of them can be forgotten."""
    if isinstance(cache, StaticCache):
        cache.reset()
    else:
        cache.crop(-tokens)


def room_of(cache: Cache) -> int | None:
    """How many keys a cache has room for; None = as many as come."""
    return max((layer.max_cache_len for layer in cache.layers if hasattr(layer, "max_cache_len")), default=None)


def keep_every_key(cache: Cache, room: int = 0) -> None:
    """Let the layers of an empty cache keep all keys that were made to drop those outside a window.

    Args:
        room: how many keys a layer of fixed room must hold at least; it holds as many as the largest of them anyway.
    """
    room = max(room, room_of(cache) or 0)
    for index, layer in enumerate(cache.layers):
        if getattr(layer, "is_sliding", False):
            cache.layers[index] = StaticLayer(room) if hasattr(layer, "max_cache_len") else DynamicLayer()
