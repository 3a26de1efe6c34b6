"""Rank correlation.

Letters: N any number of values.
"""

from __future__ import annotations

import numpy as np


def spearman(a_N: np.ndarray, b_N: np.ndarray) -> float:
    """Spearman's rank correlation, -1..1; NaN where one side is constant."""
    rank_a, rank_b = average_ranks(a_N), average_ranks(b_N)
    if not (np.ptp(rank_a) and np.ptp(rank_b)):
        return float("nan")
    return float(np.corrcoef(rank_a, rank_b)[0, 1])


def average_ranks(values_N: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of their ranks."""
    _, place, count = np.unique(values_N, return_inverse=True, return_counts=True)
    return (count.cumsum() - (count - 1) / 2)[place]
