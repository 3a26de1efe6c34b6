"""Whose turn it is: several sources spread over an epoch in proportion to what each gives to it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from astrea.data.readers.permutation import Permutation

BLOCK = 256
"""Within so many places every source has its exact share (up to rounding); within a block the order is random."""


def counts_before(place: int, shares: Sequence[int]) -> list[int]:
    """How many of the first ``place`` places of an epoch are each source's; adds up to ``place``, never falls.

    Args:
        place: 0 .. sum(shares).
        shares: places of each source in a whole epoch.
    """
    counts, left, total = [], place, sum(shares)
    for share in shares:
        mine = left * share // total if total else 0
        counts.append(mine)
        left, total = left - mine, total - share
    return counts


@lru_cache(maxsize=64)
def block_plan(block: int, shares: tuple[int, ...], seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of one block of an epoch.

    Args:
        block: its number; it holds the places ``BLOCK * block ..`` of the epoch, fewer at the epoch's end.
        shares: places of each source in a whole epoch.

    Returns:
        sources: which source each place is taken from; draws: which of that source's draws in this epoch it is,
        counting up from 0 over the epoch. Both int64, one entry per place; not to be written to.
    """
    first = BLOCK * block
    length = min(BLOCK, sum(shares) - first)
    before, after = counts_before(first, shares), counts_before(first + length, shares)
    in_turn = np.repeat(np.arange(len(shares)), np.subtract(after, before))
    sources = in_turn[Permutation(length, seed, "block", epoch, block)(np.arange(length))]
    draws = np.empty(length, np.int64)
    for source, start in enumerate(before):
        mine = sources == source
        draws[mine] = start + np.arange(np.count_nonzero(mine))
    for column in (sources, draws):
        column.setflags(write=False)
    return sources, draws
