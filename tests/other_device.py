"""A second device without one: tensors that say they live elsewhere, and refuse to meet those of the processor.

CI has no GPU, and on the processor a tensor that was never moved is no mistake. `ELSEWHERE` behaves as a GPU does: what
is computed of tensors of both devices is an error, but for single numbers and for indices. Arithmetic is the
processor's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

ELSEWHERE = torch.device("cpu", 1)
HERE = torch.device("cpu")

aten = torch.ops.aten
MOVES = (aten._to_copy.default, aten.copy_.default)
INDEXING = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._unsafe_index.Tensor)


class Far(Tensor):
    """A tensor of the other device; ``near`` holds its numbers."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> Far:
        made = Tensor._make_wrapper_subclass(
            cls,
            near.shape,
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=ELSEWHERE,
            requires_grad=False,
        )
        made.near = near
        return made

    def tolist(self) -> Any:
        return self.detach().to(HERE).tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Far({self.near!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an operation gives, on the device where its tensors are.

    Raises:
        RuntimeError: they are on both.
    """
    target = kwargs.get("device")
    everything = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    far = any(isinstance(leaf, Far) for leaf in everything)
    if func not in MOVES and far:
        checked = everything
        if func in INDEXING:
            indexed, _, *values = args
            if not isinstance(indexed, Far):
                raise RuntimeError(f"{func}: indices of another device than what is indexed")
            checked = [leaf for leaf in tree_leaves((indexed, values)) if isinstance(leaf, Tensor)]
        if any(not isinstance(leaf, Far) and leaf.ndim for leaf in checked):
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, but found two")
    generator = kwargs.get("generator")
    if generator is not None and (far or target == ELSEWHERE):
        raise RuntimeError(f"{func}: a generator of another device")
    near_args, near_kwargs = tree_map_only(Far, lambda leaf: leaf.near, (args, kwargs))
    if target is not None:
        near_kwargs["device"] = HERE
    made = func(*near_args, **near_kwargs)
    if func is aten.copy_.default:
        return args[0]
    leaves = func in MOVES and target is not None and target != ELSEWHERE
    if leaves or not (far or target == ELSEWHERE):
        return made
    made = tree_map_only(Tensor, Far, made)
    return return_and_correct_aliasing(func, args, kwargs, made) if far else made


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class _Made(TorchFunctionMode):
    """``torch.tensor(..., device=ELSEWHERE)`` and ``new_tensor`` make their tensors before any dispatch."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == ELSEWHERE:
            del kwargs["device"]
            return func(*args, **kwargs).to(ELSEWHERE)
        if func is Tensor.new_tensor and isinstance(args[0], Far):
            return args[0].near.new_tensor(*args[1:], **kwargs).to(ELSEWHERE)
        return func(*args, **kwargs)


def _no_gradients(mode: Any) -> None:
    mode.before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)


def _as_before(mode: Any, *_: object) -> None:
    torch.set_grad_enabled(mode.before)


@contextmanager
def two_devices() -> Iterator[torch.device]:
    """Within it there is a second device, the one that is yielded."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    # A parameter's data cannot be replaced by a tensor of another class; and a new parameter would not be a tied one.
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        # In inference mode a view of such a tensor cannot be made; without gradients it can.
        with (
            patch.object(torch.inference_mode, "__enter__", _no_gradients),
            patch.object(torch.inference_mode, "__exit__", _as_before),
            _Made(),
            _Dispatch(),
        ):
            yield ELSEWHERE
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


@contextmanager
def moved_there(model: Any) -> Iterator[None]:
    """Within it a model is on the other device; afterwards it is back."""
    try:
        with two_devices() as elsewhere:
            model.to(elsewhere)
            yield
    finally:
        with two_devices():
            model.to(HERE)


class Waits(TorchDispatchMode):
    """Counts how often the processor has to wait for the other device: for a number, for how many there are of
    something, for a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        if any(isinstance(leaf, Far) for leaf in leaves):
            asks = func in (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default)
            comes = func is aten._to_copy.default and kwargs.get("device") == HERE
            picks = func is aten.index.Tensor and any(t is not None and t.dtype == torch.bool for t in args[1])
            self.count += asks or comes or picks
        return func(*args, **kwargs)
