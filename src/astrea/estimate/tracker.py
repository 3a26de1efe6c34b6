"""Counting, while code runs, what it allocates and how much it multiplies.

A tensor's memory is that of its storage, counted once however many views share it, from the operation that made it
until Python lets go of it. Operations are those of matrix products, convolutions and attention, two per
multiply-and-add, by the formulas of `torch.utils.flop_counter`. It works on real tensors and on fake ones alike.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

KINDS = ("weights", "optimizer", "gradients", "activations", "temporary")
"""What memory is for. activations: kept by the forward pass for the backward pass; temporary: all the rest, such as
logits and what one operation hands to the next."""

MAPPED = 32 << 20
"""Bytes from which on glibc gives a block a mapping of its own, which is gone as soon as it is freed."""


class MemoryTracker(TorchDispatchMode):
    """While entered, counts: ``flops`` so far, ``live`` bytes by kind, ``at_peak`` the same when they were most;
    ``live_small`` and ``small_at_peak`` the same of blocks of less than `MAPPED` bytes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.live: Counter[str] = Counter()
        self.at_peak: Counter[str] = Counter()
        self.live_small: Counter[str] = Counter()
        self.small_at_peak: Counter[str] = Counter()
        self.known: dict[int, tuple[str, int]] = {}
        self.watched: dict[int, weakref.ref[Any]] = {}

    @property
    def peak(self) -> int:
        """Most bytes at one time."""
        return sum(self.at_peak.values())

    @property
    def moving(self) -> int:
        """Bytes, at that time, of small blocks that come and go with every step: all but weights and optimizer."""
        return sum(size for kind, size in self.small_at_peak.items() if kind not in ("weights", "optimizer"))

    def forget_peak(self) -> None:
        """Begin anew: from here on, what is there now is the most there ever was."""
        self._peak_is_now()

    def adopt(self, tensors: Iterable[Tensor], kind: str) -> None:
        """Count tensors that were there before, or count them as another kind from now on."""
        for tensor in tensors:
            self._see(tensor, kind)

    def kept(self, tensor: Tensor) -> Tensor:
        """For ``torch.autograd.graph.saved_tensors_hooks``: what the backward pass will need is an activation."""
        number = id(tensor.untyped_storage())
        if self.known.get(number, ("temporary", 0))[0] == "temporary":
            self._see(tensor, "activations")
        # Not the tensor itself, which may hold the graph that is about to hold it.
        return tensor.detach()

    def saving(self) -> torch.autograd.graph.saved_tensors_hooks:
        """The context in which a forward pass runs."""
        return torch.autograd.graph.saved_tensors_hooks(self.kept, lambda tensor: tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return out

    def _see(self, tensor: Tensor, kind: str | None = None) -> None:
        storage = tensor.untyped_storage()
        number = id(storage)
        before = self.known.get(number)
        if before is not None:
            if kind is not None and kind != before[0]:
                self.known[number] = (kind, before[1])
                self._count(before[0], -before[1])
                self._count(kind, before[1])
            return
        size = storage.nbytes()
        self.known[number] = (kind or "temporary", size)
        self.watched[number] = weakref.ref(storage, lambda _, number=number: self._gone(number))  # type: ignore[misc]
        self._count(kind or "temporary", size)
        if self.live.total() > self.at_peak.total():
            self._peak_is_now()

    def _gone(self, number: int) -> None:
        kind, size = self.known.pop(number)
        del self.watched[number]
        self._count(kind, -size)

    def _count(self, kind: str, size: int) -> None:
        self.live[kind] += size
        if abs(size) < MAPPED:
            self.live_small[kind] += size

    def _peak_is_now(self) -> None:
        self.at_peak, self.small_at_peak = Counter(self.live), Counter(self.live_small)
