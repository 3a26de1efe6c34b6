"""Running real code on fake tensors: shapes and whole numbers are true, real numbers are not there.

Inside `fake_tensors`, tensors of real numbers live on torch's meta device, which knows shapes and types and holds no
memory, while whole numbers and truth values (token ids, masks, segments, indices) are computed for real on the
processor. Code whose *shapes* depend on those (how many tokens have a label, which rows are whole) therefore takes the
way it takes in training, and a training step of a model of any size runs in seconds on any machine. Where code asks for
the value of one fake number (is the loss finite?), it gets 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

aten = torch.ops.aten
_META = torch.device("meta")
_INDEXED = {aten.index.Tensor: 1, aten.index_put.default: 1, aten.index_put_.default: 1,
            aten._index_put_impl_.default: 1}  # fmt: skip
"""Operations whose second argument is a list of indices, of which truth values decide a shape."""


def to_fake(module: nn.Module) -> nn.Module:
    """The module with its real numbers on the meta device; whole numbers stay where they are. Changes it in place."""
    found: nn.Module = module._apply(lambda tensor: tensor.to(_META) if tensor.is_floating_point() else tensor)
    return found


@contextlib.contextmanager
def fake_tensors() -> Iterator[None]:
    """Inside, tensors of real numbers are fake (see above)."""
    with _Constants(), _FakeTensorMode():  # type: ignore[no-untyped-call]
        yield


class _Constants(TorchFunctionMode):
    """``torch.tensor([...], device=meta)`` loses its numbers before any dispatch mode sees it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        if func is not torch.tensor or device is None or torch.device(device) != _META:
            return func(*args, **kwargs)
        made = func(*args, **{**kwargs, "device": "cpu"})
        return made.to(_META) if made.is_floating_point() else made


class _FakeTensorMode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if torch.is_inference_mode_enabled():  # there operations come whole that are made of others elsewhere
            with self:
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        if func is aten._local_scalar_dense.default and args[0].device == _META:
            return torch.ones((), dtype=args[0].dtype).item()
        if func is aten._to_copy.default and args[0].device == _META:
            return func(*args, **{**kwargs, "device": _META})  # a fake tensor is one on every device
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        there = [tensor for tensor in tensors if tensor.device != _META]
        if kwargs.get("device") is not None and torch.device(kwargs["device"]) == _META:
            if len(there) == len(tensors) and _whole(func, args, kwargs, tensors):
                kwargs["device"] = torch.device("cpu")
                return func(*args, **kwargs)
        elif len(there) == len(tensors):
            return func(*args, **kwargs)
        if func in _INDEXED:
            indices = [part for index in args[1] for part in _as_numbers(index)]
            args = (args[0], indices, *args[2:])
        if there:  # most operations have nothing to move, and looking at every argument again takes long
            args, kwargs = tree_map_only(Tensor, _gone, (args, kwargs))
        return func(*args, **kwargs)


def _gone(tensor: Tensor) -> Tensor:
    return tensor if tensor.device == _META else tensor.to(_META)


def _whole(func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> bool:
    """Whether what an operation makes are whole numbers or truth values."""
    dtype = kwargs.get("dtype")
    if dtype is None and tensors:
        dtype = tensors[0].dtype
    if dtype is None:
        filling = [x for x in args if isinstance(x, (bool, int, float))] if func is not aten.full.default else args[1:2]
        counts = func._overloadpacket in (aten.arange, aten.full)
        return counts and all(not isinstance(x, float) for x in filling)
    return not (dtype.is_floating_point or dtype.is_complex)


def _as_numbers(index: Tensor | None) -> list[Tensor | None]:
    """An index of truth values as one of numbers per dimension, if they are there."""
    if index is None or index.dtype != torch.bool or index.device == _META:
        return [index]
    return list(index.nonzero(as_tuple=True))
