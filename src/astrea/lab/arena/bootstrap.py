"""How sure a score or a difference is: a bootstrap over seeds and scenes, and Holm's correction for many comparisons.

Letters: S seeds, N items of a task, G scenes of the test set, T tasks, R resamples, D seeds drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

RESAMPLES = 2000

Scores = Mapping[str, np.ndarray]
"""Task -> scores (S, N), 0..1."""

Scenes = Mapping[str, Sequence[int]]
"""Task -> of which scene each of its N items is; one number is one scene in every task."""


def paired_difference(ours: Scores, theirs: Scores, scenes: Scenes | None = None, **how: int) -> dict[str, Any]:
    """The difference of two averages over tasks (ours minus theirs, points) on the same seeds, items and scenes: easy
    and hard ones cancel. See `hierarchical_bootstrap`."""
    apart = {task: np.asarray(ours[task], dtype=float) - np.asarray(theirs[task], dtype=float) for task in ours}
    return hierarchical_bootstrap(apart, scenes, **how)


def hierarchical_bootstrap(
    scores: Scores, scenes: Scenes | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """The average over tasks in points, with a 95 % interval that answers for other seeds and other pictures.

    Every resample draws seeds, and scenes with all items of each together: what is asked of one picture is right or
    wrong together. All seeds are tested on the same pictures, so one draw of scenes serves all of them; drawn for each
    seed apart, pictures that are hard for every seed would seem to average out. Of S seeds S - 1 are drawn, which makes
    the variance of their mean unbiased (Rao and Wu 1988). The ends are percentiles. Two or three seeds are few whatever
    is done with them: where nearly all of the spread is that of seeds, the interval covers the truth less often than it
    says (52 % with two, 75 % with three, 83 % with five, 90 % with eight: ``benchmarks/interval_coverage.py``).

    Args:
        scores: may be differences. scenes: None = not known, every item counts as a scene of its own.

    Returns:
        mean, low, high. p: two-sided, of a mean of zero. over: what was drawn, such as "seeds and scenes"; with one
        seed and one scene nothing is, and low, high and p are None.
    """
    rows_STN = [np.asarray(values, dtype=float) for values in scores.values()]
    if scenes is None:
        ends = np.cumsum([rows.shape[1] for rows in rows_STN])
        numbers_TN = [np.arange(end - rows.shape[1], end) for end, rows in zip(ends, rows_STN, strict=True)]
    else:
        known = np.unique(np.concatenate([np.asarray(scenes[task]) for task in scores]))
        numbers_TN = [np.searchsorted(known, np.asarray(scenes[task])) for task in scores]
    count_S, count_G = len(rows_STN[0]), 1 + max(int(numbers.max()) for numbers in numbers_TN)
    sums_GST = np.stack(
        [
            np.stack([np.bincount(numbers, row, minlength=count_G) for row in rows], 1)
            for numbers, rows in zip(numbers_TN, rows_STN, strict=True)
        ],
        2,
    )
    items_GT = np.stack([np.bincount(numbers, minlength=count_G) for numbers in numbers_TN], 1)
    mean = 100 * float(np.mean([rows.mean() for rows in rows_STN]))
    over = [
        name for name, count in (("seeds", count_S), ("items" if scenes is None else "scenes", count_G)) if count > 1
    ]
    if not over:
        return {"mean": mean, "low": None, "high": None, "p": None, "over": "nothing"}
    times_RG, seeds_RD = _draws(count_G, count_S, resamples, seed)
    sums_RST = (times_RG @ sums_GST.reshape(count_G, -1)).reshape(resamples, *sums_GST.shape[1:])
    items_RT = (times_RG @ items_GT).astype(float)
    # A task of which no item was drawn has no mean in that resample.
    items_RT[items_RT == 0] = np.nan
    average_RS = np.nanmean(sums_RST / items_RT[:, None], 2)
    drawn_R = 100 * np.take_along_axis(average_RS, seeds_RD, 1).mean(1)
    low, high = np.percentile(drawn_R, [2.5, 97.5])
    return {"mean": mean, "low": float(low), "high": float(high), "p": _chance(drawn_R), "over": " and ".join(over)}


@lru_cache(maxsize=8)
def _draws(scenes: int, seeds: int, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each scene is drawn (R, G), and which seeds are (R, D)."""
    rng = np.random.default_rng(seed)
    times_RG = rng.multinomial(scenes, np.full(scenes, 1 / scenes), size=resamples).astype(np.float64)
    return times_RG, rng.integers(0, seeds, size=(resamples, max(1, seeds - 1)))


def _chance(drawn_R: np.ndarray) -> float:
    """Twice the smaller share of resamples on either side of zero; never below what so many can tell."""
    drawn_R = np.round(drawn_R, 9)  # sums of equal scores that cancel leave 1e-17
    least = min(int((drawn_R <= 0).sum()), int((drawn_R >= 0).sum()))
    return min(1.0, 2 * (least + 1) / (len(drawn_R) + 1))


def holm(chances: Mapping[str, float]) -> dict[str, float]:
    """The p of each of several comparisons, adjusted for their number (Holm 1979): compared with 0.05, they name any
    difference that is none in at most one family of twenty."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(chances, key=lambda name: chances[name])):
        highest = max(highest, min(1.0, (len(chances) - rank) * chances[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in chances}
