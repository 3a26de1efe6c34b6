"""What reading fewer tokens costs in points.

Letters: Q questions, L length, M visual tokens, T all experts' tokens, E experts, D language-model width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from astrea.common.progress import Reporter
from astrea.evaluation.generate import Features, Predictor
from astrea.fusion.astrea import UNREAD
from astrea.fusion.protocol import VisualTokens
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.world.evaluation.contribution import pictures_of, turns_of
from astrea.world.evaluation.runner import EncodedTestSets, Outcome, run_tasks

THRESHOLDS = (0.0, 0.08, 0.12, 0.15, 0.18, 0.22, 0.26, 0.32, 0.45)
"""Of a token's worth, see `astrea.fusion.pruning.token_score`."""

WANTED = 0.6
"""Part of the visual tokens that a model with token pruning may read."""

MOST, HALVINGS = 2.0, 10
"""The search for the threshold that does it."""


def pareto(
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    encoded: EncodedTestSets,
    tasks: Sequence[str],
    report: Reporter,
) -> list[dict[str, float]]:
    """How the average falls as tokens that promise little are no longer read.

    Returns:
        For every threshold (a fusion without ``threshold``: for 0 alone) the average, and per question the mean number
        of visual tokens and of experts that the language model reads; tokens_share: these tokens over those at 0.
    """
    predictor = Predictor(model, tokenizer)
    thresholds = THRESHOLDS if hasattr(model.fusion, "threshold") else (0.0,)
    points: list[dict[str, float]] = []
    before_QM, average = torch.empty(0), 0.0
    for number, threshold in enumerate(thresholds, 1):
        with reading_from(model.fusion, threshold):
            tokens_QM, experts_QE = what_is_read(predictor, encoded, tasks)
            # Who reads the same tokens gives the same answers: a threshold that moves nothing need not be run.
            if not torch.equal(tokens_QM, before_QM):
                row = run_tasks(predictor, encoded, tasks, blind=False, label=f"from {threshold}", report=Reporter())
                before_QM, average = tokens_QM, row.average
        count = float(tokens_QM.sum(1).double().mean())
        points.append(
            {
                "threshold": threshold,
                "average": average,
                "tokens_read": count,
                "tokens_share": count / points[0]["tokens_read"] if points and points[0]["tokens_read"] else 1.0,
                "experts_read": float(experts_QE.sum(1).double().mean()),
            }
        )
        report.track("pareto", number, len(thresholds), f"threshold {threshold}")
    return points


def saving(
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    encoded: EncodedTestSets,
    tasks: Sequence[str],
    main: Outcome,
    wanted: float = WANTED,
) -> dict[str, float]:
    """What it costs to read at most the ``wanted`` part of the visual tokens, on every item.

    Args:
        tasks: whose questions the tokens are counted over. The average is over all tasks of ``main``: retrieval, too,
            then reads less, by a question that captions ask as well.
        main: the model's own row of the table.

    Returns:
        threshold, tokens_share, average, and difference in points; {} for a fusion without a threshold.
    """
    if not hasattr(model.fusion, "threshold"):
        return {}
    predictor = Predictor(model, tokenizer)
    threshold, share = threshold_for(predictor, encoded, tasks, wanted)
    with reading_from(model.fusion, threshold):
        row = run_tasks(predictor, encoded, list(main.scores), blind=False, label="fewer tokens", report=Reporter())
    difference = row.average - main.average
    return {"threshold": threshold, "tokens_share": share, "average": row.average, "difference": difference}


def threshold_for(
    predictor: Predictor, encoded: EncodedTestSets, tasks: Sequence[str], wanted: float = WANTED
) -> tuple[float, float]:
    """The least threshold that makes the language model read at most the ``wanted`` part of the visual tokens, and the
    part that it then reads: all of them, whatever the threshold, where a fusion knows none."""
    fusion = predictor.model.fusion

    def read(threshold: float) -> float:
        with reading_from(fusion, threshold):
            return float(what_is_read(predictor, encoded, tasks)[0].sum(1).double().mean())

    every, low, high = read(0.0), 0.0, MOST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if read(middle) > wanted * every else (low, middle)
    return high, read(high) / every if every else 1.0


@contextmanager
def reading_from(fusion: nn.Module, threshold: float) -> Iterator[None]:
    """Within it, tokens that promise less are not read; afterwards, come what may, the threshold is as before.
    Nothing happens to a fusion that has none."""
    if not hasattr(fusion, "threshold"):
        yield
        return
    own = fusion.threshold
    fusion.threshold = threshold  # type: ignore[assignment]
    try:
        yield
    finally:
        fusion.threshold = own


@torch.inference_mode()
def what_is_read(predictor: Predictor, encoded: EncodedTestSets, tasks: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Which visual tokens (Q, M) and which experts (Q, E) the language model reads for each question, as bool.

    A fusion with a threshold reads the experts' own tokens, so an expert is read if one of its tokens is; of any other
    an expert counts as read if it has a share.
    """
    model = predictor.model
    owner_T = torch.arange(len(model.experts.names)).repeat_interleave(torch.tensor(model.alignment.counts))
    tokens, experts = [], []
    for task in tasks:
        turns, features = turns_of(encoded, task), pictures_of(encoded, task)
        for start in range(0, len(turns), predictor.batch):
            part = turns[start : start + predictor.batch]
            asked, pictures = [turn.question for _, turn in part], [picture for picture, _ in part]
            visual = fused(predictor, asked, features, pictures)
            read_QM = visual.valid
            if visual.bias is not None:
                read_QM = read_QM & (visual.bias[:, 0] > UNREAD / 2)
            read_QM = read_QM.cpu()
            tokens.append(read_QM)
            if hasattr(model.fusion, "threshold"):
                own = [read_QM[:, owner_T == expert].any(1) for expert in range(len(model.experts.names))]
                experts.append(torch.stack(own, 1))
            else:
                experts.append(visual.shares[:, 0].cpu() > 0)
    return torch.cat(tokens), torch.cat(experts)


@torch.inference_mode()
def shares_for(predictor: Predictor, encoded: EncodedTestSets, tasks: Sequence[str]) -> dict[str, Tensor]:
    """Every expert's share for every item of each task (Q, E), without answering anything."""
    found = {}
    for task in tasks:
        turns, features = turns_of(encoded, task), pictures_of(encoded, task)
        parts = []
        for start in range(0, len(turns), predictor.batch):
            part = turns[start : start + predictor.batch]
            asked, pictures = [turn.question for _, turn in part], [picture for picture, _ in part]
            parts.append(fused(predictor, asked, features, pictures).shares[:, 0].cpu())
        found[task] = torch.cat(parts)
    return found


def fused(predictor: Predictor, questions: Sequence[str], features: Features, pictures: Sequence[int]) -> VisualTokens:
    """What the language model gets to read for each of some questions, one per row, without running it."""
    inputs = predictor.prompts(questions, pictures=False)
    embeds_QLD = predictor.model.get_input_embeddings()(inputs["input_ids"])
    asked_QL1 = inputs["question_mask"].to(embeds_QLD.dtype).unsqueeze(-1)
    question_QD = (embeds_QLD * asked_QL1).sum(1) / asked_QL1.sum(1)
    shown = predictor.rows(features, torch.tensor(pictures))
    found: VisualTokens = predictor.model.fuse(shown, predictor.present(len(pictures)), question_QD.unsqueeze(1), None)
    return found
