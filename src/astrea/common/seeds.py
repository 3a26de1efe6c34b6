"""Everything random in training, as functions of (seed, purpose, step)."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def generator_for(seed: int, *purpose: object) -> torch.Generator:
    """A generator that depends on the seed and the purpose alone, alike on every rank and after every resume."""
    digest = hashlib.blake2b("/".join(map(str, (seed, *purpose))).encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def sample_indices(total: int, size: int, position: int, seed: int) -> Tensor:
    """Samples ``position .. position + size`` of an endless stream of shuffled epochs; the order is f(seed, epoch)."""
    parts, need = [], size
    while need:
        epoch, offset = divmod(position, total)
        order = torch.randperm(total, generator=generator_for(seed, "epoch", epoch))
        part = order[offset : offset + need]
        parts.append(part)
        position += len(part)
        need -= len(part)
    return torch.cat(parts)
