"""Computing in float32 with weights that are kept in half precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.func import functional_call


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type itself, or float32 where it is a narrower one."""
    return torch.promote_types(dtype, torch.float32)


def in_full(module: nn.Module, *args: Any, method: str | None = None, dtype: torch.dtype | None = None) -> Any:
    """Call a module, or a method of it, with its half-precision weights and buffers widened for as long as that takes.

    Shares, trust, thresholds and coordinates are compared with one another: they would change their order in half
    precision. Gradients arrive at the weights as they are kept. With weights in float32 or wider this is a plain call,
    and so it is with weights that are offloaded to the disk.

    Args:
        dtype: compute in this type instead, whatever the weights are kept in.
    """
    wanted = module if method is None else _Method(module, method)
    held = [*wanted.named_parameters(), *wanted.named_buffers()]
    types = {name: wide(t.dtype) if dtype is None else dtype for name, t in held if t.is_floating_point()}
    changed = {name: t.to(types[name]) for name, t in held if name in types and t.dtype != types[name]}
    # Weights that come from the disk as they are used cannot be changed beforehand.
    there = not any(t.is_meta for t in changed.values())
    return functional_call(wanted, changed, args) if changed and there else wanted(*args)


class _Method(nn.Module):
    """A method of a module as a module, because only whole modules are called with other weights."""

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module, self.method = module, method

    def forward(self, *args: Any) -> Any:
        return getattr(self.module, self.method)(*args)
