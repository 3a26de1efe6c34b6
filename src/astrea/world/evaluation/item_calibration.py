"""Whether the contributions that a gate predicts for single items are those that are measured.

Letters: Q questions of a task, E experts, N items: every question with every expert.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astrea.fusion.item_gate import predicted_contributions, squashed
from astrea.world.evaluation.ranks import spearman

NOISE = 0.002
"""Nats below which a measured contribution says nothing: such items are ties."""

EDGES = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
"""Of the bins of the reliability diagram, in predicted contributions c / (1 + c). Most are small, so bins are too."""

FEWEST = 20
"""Items of a template and expert below which they are not ranked."""


def item_calibration(
    shares: Mapping[str, Tensor],
    contribution: Mapping[str, Tensor],
    load_bias_E: Tensor,
    templates: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Predicted against measured contributions, item by item.

    Args:
        shares: task -> gate weights (Q, E). contribution: task -> measured nats (Q, E) of the same questions.
        load_bias_E: of the gate, see `predicted_contributions`. templates: task -> the template of every question.

    Returns:
        rank_correlation: Spearman over all items. within_template: Spearman over the items of one template and expert,
        averaged by their number: what is left for the picture (and the question's words) to explain. error: the
        expected calibration error, mean over items of |mean measured - mean predicted| of their bin, both squashed
        to c / (1 + c). bins: the upper edge of each bin -> the two means and the number of items. NaN where there is
        nothing to average.
    """
    found = {task: predicted_contributions(shares[task].double().cpu(), load_bias_E.double().cpu()) for task in shares}
    told = {task: found[task].numpy() for task in contribution}
    worth = {task: values.double().cpu().clamp_min(NOISE).numpy() for task, values in contribution.items()}
    if not worth:
        return {}
    p_N, y_N = (_all({t: squashed(torch.from_numpy(v)).numpy() for t, v in side.items()}) for side in (told, worth))
    bins, error = {}, 0.0
    for low, high in pairwise(EDGES):
        mine = (p_N >= low) & ((p_N < high) | (high == EDGES[-1]))
        count = int(mine.sum())
        means = [float(side[mine].mean()) if count else float("nan") for side in (p_N, y_N)]
        error += abs(means[0] - means[1]) * count if count else 0.0
        bins[f"{high:g}"] = {"predicted": means[0], "measured": means[1], "items": count}
    return {
        "rank_correlation": spearman(_all(told), _all(worth)),
        "within_template": _within(told, worth, templates),
        "error": error / len(p_N),
        "bins": bins,
    }


def picture_share(shares: Mapping[str, Tensor], questions: Mapping[str, Sequence[str]]) -> float:
    """Which part (0..1) of the variance of gate weights the picture explains: their variance among pictures of which
    the same is asked, over their whole variance, both unbiased and summed over experts.

    Args:
        shares: task -> gate weights (Q, E). questions: task -> what is asked, of every item.

    Returns:
        NaN where nothing is asked twice, or no weight differs.
    """
    weights_NE = np.concatenate([values.double().cpu().numpy() for values in shares.values()])
    asked = [f"{task}/{text}" for task in shares for text in questions[task]]
    group_N = np.unique(asked, return_inverse=True)[1]
    count_G = np.bincount(group_N)
    spare = len(weights_NE) - len(count_G)
    whole = weights_NE.var(0, ddof=1).sum() if len(weights_NE) > 1 else 0.0
    if not spare or not whole:
        return float("nan")
    mean_GE = np.zeros((len(count_G), weights_NE.shape[1]))
    np.add.at(mean_GE, group_N, weights_NE)
    rest_NE = weights_NE - (mean_GE / count_G[:, None])[group_N]
    return float(np.square(rest_NE).sum() / spare / whole)


def _all(values: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([each.ravel() for each in values.values()])


def _within(
    told: Mapping[str, np.ndarray], worth: Mapping[str, np.ndarray], templates: Mapping[str, Sequence[str]]
) -> float:
    """The mean over templates and experts whose contributions differ; 0 where predictions do not."""
    ranks, counts = [], []
    for task, names in templates.items():
        for name in dict.fromkeys(names):
            mine = np.array([other == name for other in names])
            for expert in range(worth[task].shape[1]):
                a_N, b_N = told[task][mine, expert], worth[task][mine, expert]
                if len(b_N) >= FEWEST and np.ptp(b_N) > 0:
                    ranks.append(np.nan_to_num(spearman(a_N, b_N)))
                    counts.append(len(b_N))
    return float(np.average(ranks, weights=counts)) if ranks else float("nan")
