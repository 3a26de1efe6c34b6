"""What adaptivity buys and what each expert is worth, measured on a finished model.

Retrieval is left out of the probes: ranking a pool anew for every probe would cost too much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from astrea.common.errors import AstreaError
from astrea.common.files import finite_or_null
from astrea.common.progress import SILENT, Reporter
from astrea.evaluation.generate import Predictor
from astrea.evaluation.metrics.balance import load_balance
from astrea.fusion.astrea import AstreaFusion
from astrea.lab.probes.pareto import pareto, saving, shares_for
from astrea.lab.probes.robustness import reliability_rates, robustness
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.world.evaluation.contribution import calibration, cell_means, contributions
from astrea.world.evaluation.runner import EncodedTestSets, Outcome, first_items, without_each_expert
from astrea.world.evaluation.tasks import CAPTION_TASKS
from astrea.world.scenes.questions import VQA_TASKS

PROBE_TASKS: tuple[str, ...] = (*VQA_TASKS, *CAPTION_TASKS)


def probe(
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    encoded: EncodedTestSets,
    main: Outcome,
    *,
    tasks: Sequence[str] = PROBE_TASKS,
    items: int | None = 60,
    many: EncodedTestSets | None = None,
    report: Reporter = SILENT,
) -> dict[str, Any]:
    """All probes of a model, JSON-able. Scores are 0..100, differences in points; the same call gives the same figures.

    Args:
        main: the model's own row of the table, of at least ``tasks``.
        tasks: VQA and caption tasks to probe on; averages are over these.
        items: masking, robustness and pareto use only this many items of each task (None = all). Load, saving and trust
            use all.
        many: contributions and shares are measured on these test sets, which may be larger; None = on ``encoded``. A
            contribution in one condition is a small difference and wants many questions.

    Returns:
        masking: see `masking`. contribution, shares: mean nats, and mean share, by task, condition and expert.
        calibration: see `astrea.world.evaluation.contribution.calibration`. load: see `load_with_entropy`.
        robustness: see `robustness`. pareto, saving: see `astrea.lab.probes.pareto`. trust: see `reliability_rates`.
        tasks, items: what was probed.

    Raises:
        AstreaError: a task that cannot be probed, or that ``main`` does not have.
    """
    odd = [task for task in tasks if task not in PROBE_TASKS or task not in main.per_item]
    if odd or not tasks:
        raise AstreaError(
            f"cannot probe on {', '.join(odd) or 'no task at all'}",
            f"evaluate the model on the tasks first and choose among {', '.join(PROBE_TASKS)}",
        )
    names = model.experts.names
    few = first_items(encoded, tasks, items)
    whole = {task: 100 * float(np.mean(main.per_item[task][:items])) for task in tasks}
    many = encoded if many is None else many
    by_task = contributions(model, tokenizer, many, tasks, report=report)
    shares = shares_for(Predictor(model, tokenizer), many, tasks)
    found: dict[str, Any] = finite_or_null(
        {
            "tasks": list(tasks),
            "items": items,
            "masking": masking(model, tokenizer, few, whole, report),
            "contribution": cell_means(many, by_task, names),
            "shares": cell_means(many, shares, names),
            "calibration": calibration(many, shares, by_task, load_bias(model)),
            "load": load_with_entropy(main.shares, names),
            "robustness": robustness(model, tokenizer, few, whole, report),
            "pareto": pareto(model, tokenizer, few, tasks, report),
            "saving": saving(model, tokenizer, encoded, tasks, main),
            "trust": reliability_rates(model, encoded, tasks),
        }
    )
    return found


def load_bias(model: AstreaForConditionalGeneration) -> Tensor | None:
    """Of the model's gate (E,); None where it has none."""
    fusion = model.fusion
    return fusion.allocator.load_bias if isinstance(fusion, AstreaFusion) and fusion.allocator is not None else None


def masking(
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    encoded: EncodedTestSets,
    whole: Mapping[str, float],
    report: Reporter,
) -> dict[str, dict[str, Any]]:
    """`without_each_expert`, with the mean over the tasks: {expert: {"average": points, "tasks": {task: points}}}"""
    points = without_each_expert(model, tokenizer, encoded, whole, report)
    return {name: {"average": float(np.mean(list(tasks.values()))), "tasks": tasks} for name, tasks in points.items()}


def load_with_entropy(shares: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Any]:
    """`load_balance`; the entropy of the mean shares in nats, and over its maximum: 1 = all alike, 0 = one does all."""
    figures = load_balance(shares, names)
    if not figures:
        return {}
    total = sum(figures["mean"].values())
    parts = [share / total for share in figures["mean"].values() if share > 0]
    entropy = -sum(part * math.log(part) for part in parts)
    return {**figures, "entropy": entropy, "entropy_share": entropy / math.log(len(names)) if len(names) > 1 else 1.0}
