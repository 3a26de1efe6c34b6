"""Computing in float32 with weights that are kept in half precision.

Letters: R positions in the text, D width of the language model, V words, K the best of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type itself, or float32 where it is a narrower one."""
    return torch.promote_types(dtype, torch.float32)


def in_full(module: nn.Module, *args: Any, method: str | None = None, dtype: torch.dtype | None = None) -> Any:
    """Call a module, or a method of it, with its half-precision weights and buffers widened for as long as that takes.

    Gate weights, reliabilities, thresholds and coordinates are compared with one another: they would change their order
    in half precision. Gradients arrive at the weights as they are kept. With weights in float32 or wider this is a
    plain call, and so it is with weights that are offloaded to the disk.

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


BEST = 16
"""How many words of a position are scored again. Two would do for the best word (bfloat16, captions of the embedded
world: the same agreement with float32 for 2 to 64); beams and samplers look at more."""

AT_ONCE = 1 << 24
"""Widened weights held at one time: 64 MiB of them."""


def score_best_again(head: nn.Module, inputs: tuple[Any, ...], scores: Tensor) -> Tensor | None:
    """A forward hook for the layer that scores words: float32 scores, those of the `BEST` words computed in float32.

    bfloat16 has 8 bits: of scores between 16 and 32 it knows every eighth, and greedy decoding takes the first of two
    words that have become equal. The rest keep the scores that they have: the whole layer in float32 would read its
    weights, which may be a large share of the model, at twice the cost or more. With gradients, and for weights that
    are quantised, sharded or on the disk, scores stay as they are (None).

    Args:
        inputs: (hidden states (..., D),). scores: (..., V).
    """
    weight: Any = getattr(head, "weight", None)
    if torch.is_grad_enabled() or wide(scores.dtype) == scores.dtype:
        return None
    if type(weight) not in (Tensor, nn.Parameter) or weight.is_meta or not weight.is_floating_point():
        return None
    with torch.autocast(scores.device.type, enabled=False):
        hidden_RD = inputs[0].reshape(-1, inputs[0].shape[-1]).float()
        best_RK = scores.reshape(len(hidden_RD), -1).topk(min(BEST, scores.shape[-1]), -1).indices
        rows = max(1, AT_ONCE // (best_RK.shape[1] * hidden_RD.shape[1]))
        parts = zip(hidden_RD.split(rows), best_RK.split(rows), strict=True)
        found_RK = torch.cat([(weight[best].float() @ hidden.unsqueeze(-1)).squeeze(-1) for hidden, best in parts])
        bias = getattr(head, "bias", None)
        if bias is not None:
            found_RK = found_RK + bias[best_RK].float()
        return scores.float().scatter(-1, best_RK.view(*scores.shape[:-1], -1), found_RK.view(*scores.shape[:-1], -1))
