"""What a corrupted expert costs, and whether it counts as reliable.

Letters: N pictures, T tokens of one expert, C width of its tokens, E experts, D language-model width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from astrea.common.progress import Reporter
from astrea.evaluation.generate import Features, Predictor
from astrea.experts.corruption import frozen, not_numbers, of_the_next, stuck
from astrea.experts.protocol import ExpertFeatures
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.world.evaluation.runner import EncodedTestSets, run_tasks
from astrea.world.scenes.questions import VQA_TASKS

CORRUPTIONS = {"swapped": of_the_next, "frozen": frozen, "constant": stuck, "nan": not_numbers}


def robustness(
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    encoded: EncodedTestSets,
    whole: Mapping[str, float],
    report: Reporter,
) -> dict[str, Any]:
    """The average when one expert is corrupted on every picture: see `corrupted`.

    Returns:
        {kind: {expert: {"average": score}}}, "clean": the average with sound experts, "mean_loss": {kind: points lost,
        mean over experts}.
    """
    names = model.experts.names
    clean = float(np.mean(list(whole.values())))
    found: dict[str, Any] = {kind: {} for kind in CORRUPTIONS}
    for number, (kind, name) in enumerate(((k, n) for k in CORRUPTIONS for n in names), 1):
        ill = corrupted_test_sets(encoded, name, kind)
        predictor = Predictor(model, tokenizer)
        row = run_tasks(predictor, ill, list(whole), blind=False, label=f"{kind} {name}", report=Reporter())
        found[kind][name] = {"average": row.average}
        report.track("robustness", number, len(CORRUPTIONS) * len(names), f"{kind} {name}")
    lost = {kind: float(np.mean([clean - found[kind][name]["average"] for name in names])) for kind in CORRUPTIONS}
    return {**found, "clean": clean, "mean_loss": lost}


def corrupted_test_sets(encoded: EncodedTestSets, name: str, kind: str) -> EncodedTestSets:
    """The same test sets, but one expert is corrupted on every picture of questions and captions."""
    return changed_test_sets(encoded, name, CORRUPTIONS[kind])


def changed_test_sets(
    encoded: EncodedTestSets, name: str, change: Callable[[ExpertFeatures], ExpertFeatures]
) -> EncodedTestSets:
    """The same test sets, but one expert's features of all pictures of questions and captions are changed."""
    return replace(
        encoded,
        questions={**encoded.questions, name: change(encoded.questions[name])},
        described={task: {**part, name: change(part[name])} for task, part in encoded.described.items()},
    )


def corrupted(features: Features, name: str, kind: str) -> Features:
    """The same features, but one expert is wrong about every picture.

    Args:
        kind: "swapped": it says what it saw in another picture of the set. "frozen": of every picture it says what it
            saw in one. "constant": every slot says what its surest slot says. "nan": its tokens are not numbers.
    """
    return {**features, name: CORRUPTIONS[kind](features[name])}


def reliability_rates(
    model: AstreaForConditionalGeneration, encoded: EncodedTestSets, tasks: Sequence[str]
) -> dict[str, dict[str, float]] | None:
    """How often each expert counts as reliable, 0..1: with its own output, and with that for another picture.

    Returns:
        {expert: {"clean": rate, "swapped": rate}} over all pictures of the tasks; None where the fusion does not judge.
    """
    clean_E = reliable_share(model, encoded, tasks)
    if clean_E is None:
        return None
    found = {}
    for index, name in enumerate(model.experts.names):
        swapped_E = reliable_share(model, corrupted_test_sets(encoded, name, "swapped"), tasks)
        assert swapped_E is not None  # the same fusion
        found[name] = {"clean": float(clean_E[index]), "swapped": float(swapped_E[index])}
    return found


@torch.inference_mode()
def reliable_share(
    model: AstreaForConditionalGeneration, encoded: EncodedTestSets, tasks: Sequence[str], batch: int = 64
) -> Tensor | None:
    """The share (E,) of pictures on which each expert is believed, by the fusion and, where `AstreaConfig.agreement` is
    on, by its agreement with the others; None where nobody judges."""
    model.eval()
    sets = [encoded.described[task] for task in tasks if task not in VQA_TASKS]
    if any(task in VQA_TASKS for task in tasks):
        sets.append(encoded.questions)
    found = []
    for features in sets:
        count = len(next(iter(features.values())).tokens)
        for start in range(0, count, batch):
            part = {n: f.rows(slice(start, start + batch)) for n, f in features.items()}
            size = min(batch, count - start)
            # Reliability is about the picture, so the question may be empty.
            nothing_N1D = torch.zeros(size, 1, model.config.text_config.hidden_size, dtype=model.dtype)
            verdicts = model.fuse(part, None, nothing_N1D, None).reliable, model.model.believed(part, None)
            given = [verdict_NE for verdict_NE in verdicts if verdict_NE is not None]
            if not given:
                return None
            found.append(torch.stack(given).all(0))
    return torch.cat(found).double().mean(0)
