"""Expanding a trained fusion by one expert: the parameters of the others stay, bit for bit.

The initial values for the new expert are in the tables below.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.fusion.astrea import AstreaFusion
from astrea.fusion.protocol import FusionStrategy
from astrea.fusion.reliability import AGREEMENTS

EXPERT_AXES: Mapping[str, tuple[int, ...]] = {
    "allocator.bias_question.weight": (1, 0),
    "allocator.bias_question.bias": (1,),
    "allocator.own": (1, 0),
    "allocator.score": (1, 0),
    "allocator.load_bias": (1,),
    "allocator.load": (1,),
    "residual.alpha": (1,),
    "trust.own": (1, 0),
    "trust.from_echo": (1, AGREEMENTS + 1, 0),
    "trust.usual": (1, AGREEMENTS),
    "trust.spread": (1, AGREEMENTS),
}
"""Tensors with entries per expert: for each axis, how many blocks of all experts it holds; 0 = none."""

AS_THE_OTHERS = (
    *("allocator.bias_question.weight", "allocator.bias_question.bias", "allocator.own", "allocator.score"),
    *("allocator.load_bias", "residual.alpha", "trust.own"),
)
"""Tensors in which the new expert starts as the mean of the others. Elsewhere it starts without effect: with zeros, or
ones where a tensor is a divisor."""

ONES = ("trust.spread",)


@torch.no_grad()
def expand_fusion(old: FusionStrategy, new: FusionStrategy) -> None:
    """Fill ``new``, built for one more expert at the end, with what ``old`` has learned.

    The reliability of the old experts does not change: agreement with the new one weighs zero. Its gate weight starts
    at the mean of the others; `astrea.training.add_expert.set_initial_weight` then lowers it.

    Raises:
        AstreaError: the strategy is not Astrea's, so its parts cannot be expanded; or it has no gate, so the weight
            of the new expert could not be set.
    """
    if not isinstance(old, AstreaFusion) or not isinstance(new, AstreaFusion):
        raise AstreaError(
            f"a model that fuses by {type(old).__name__} cannot take in another expert",
            "train one with all its experts by `astrea train`; only the strategy astrea can grow",
        )
    if old.allocator is None:
        raise AstreaError(
            "a model without an allocator gives every expert an equal share, a stranger too",
            "train one with all its experts by `astrea train`, or one with model.gate=true first",
        )
    grown = new.state_dict()
    for name, tensor in old.state_dict().items():
        if name in EXPERT_AXES:
            start = 1.0 if name in ONES else 0.0
            grown[name].copy_(expanded_tensor(tensor, EXPERT_AXES[name], start))
            if name in AS_THE_OTHERS:
                grown[name][-1] = tensor.mean(0)
        else:
            grown[name].copy_(tensor)


def expanded_tensor(old: Tensor, runs: tuple[int, ...], start: float) -> Tensor:
    """The tensor with one more expert along every axis that has entries per expert, filled with ``start``."""
    for axis, count in enumerate(runs):
        if count:
            blocks = old.unflatten(axis, (count, -1))
            more = torch.full_like(blocks.narrow(axis + 1, 0, 1), start)
            old = torch.cat([blocks, more], axis + 1).flatten(axis, axis + 1)
    return old
