"""What identifies tensors: for caches that must never be stale, and checkpoints that must fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor


def tensors_fingerprint(state_dict: Mapping[str, Tensor]) -> str:
    """The sha256 of names, dtypes, shapes and bytes, whatever the order and the device."""
    total = hashlib.sha256()
    for name in sorted(state_dict):
        plain = state_dict[name].detach().to("cpu").contiguous()
        total.update(json.dumps([name, str(plain.dtype), list(plain.shape)]).encode() + b"\n")
        total.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
