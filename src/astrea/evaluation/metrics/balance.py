"""How evenly a model uses its experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def load_balance(shares: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Any]:
    """Mean share per expert over all questions, its coefficient of variation, and the largest over the mean."""
    if not shares:
        return {}
    load = torch.cat(list(shares.values())).mean(0)
    return {
        "mean": dict(zip(names, load.tolist(), strict=True)),
        "cv": float(load.std(unbiased=False) / load.mean()),
        "max_over_mean": float(load.max() / load.mean()),
    }
