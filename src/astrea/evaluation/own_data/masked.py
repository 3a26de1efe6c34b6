"""What each expert contributes to answers about data of one's own: the score without it, less the score with all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from astrea.common.progress import Reporter
from astrea.evaluation.own_data.answers import Answers, ItemPredictor
from astrea.evaluation.own_data.items import Item
from astrea.evaluation.own_data.score import by_kind

MOST = 200
"""Items with pictures that are answered again without each expert, evenly spread over the data."""


def score_changes(
    predictor: ItemPredictor, items: Sequence[Item], answers: Answers, report: Reporter
) -> dict[str, dict[str, Any]]:
    """``masking`` (expert -> change of the average, in points; below zero where it is missed) and ``masking_by_task``,
    as `results.json` has them; nothing where no item shows a picture.

    Args:
        answers: with every expert.
    """
    shown = [
        row for row, item in enumerate(items) if item.sample.record.images and answers.with_pictures[row] is not None
    ]
    asked = [shown[at] for at in np.linspace(0, len(shown) - 1, min(MOST, len(shown))).round().astype(int)]
    if not asked:
        return {}
    part = [items[row] for row in asked]
    whole = by_kind(part, [str(answers.with_pictures[row]) for row in asked])
    change: dict[str, float] = {}
    by_task: dict[str, dict[str, float]] = {}
    for name in predictor.model.experts.names:
        less = by_kind(part, predictor.answer_without(name, part, report))
        by_task[name] = {kind: less[kind] - whole[kind] for kind in whole}
        change[name] = float(np.mean(list(by_task[name].values())))
    return {"masking": change, "masking_by_task": by_task}
