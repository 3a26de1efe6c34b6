"""What reading fewer experts costs in points, and what it saves in tokens.

Letters: Q questions, L length, M visual tokens, T all experts' tokens, E experts, D language-model width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from astrea.evaluation.answering import Answerer, Features
from astrea.evaluation.contribution import pictures_of, turns_of
from astrea.evaluation.runner import Seen, run_tasks
from astrea.fusion.astrea import UNREAD
from astrea.fusion.protocol import VisualTokens
from astrea.model import AstreaForConditionalGeneration
from astrea.progress import Reporter

THRESHOLDS = (0.0, 0.05, 0.1, 0.15, 0.18, 0.2, 0.22, 0.25, 0.3, 0.4)
"""Shares from which on an expert is read."""


def pareto(
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    seen: Seen,
    tasks: Sequence[str],
    report: Reporter,
) -> list[dict[str, float]]:
    """How the average falls as experts with a small share are no longer read, and what that saves.

    Returns:
        For every threshold (a fusion without ``threshold``: for 0 alone) the average, and per question the mean number
        of visual tokens and of experts that the language model reads; tokens_share: these tokens over those at 0.
    """
    answerer = Answerer(model, tokenizer)
    thresholds = THRESHOLDS if hasattr(model.fusion, "threshold") else (0.0,)
    points: list[dict[str, float]] = []
    before_QM, average = torch.empty(0), 0.0
    for number, threshold in enumerate(thresholds, 1):
        with reading_from(model.fusion, threshold):
            tokens_QM, experts_QE = what_is_read(answerer, seen, tasks)
            # Who reads the same tokens gives the same answers: a threshold that moves nothing need not be run.
            if not torch.equal(tokens_QM, before_QM):
                row = run_tasks(answerer, seen, tasks, blind=False, label=f"from {threshold}", report=Reporter())
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


@contextmanager
def reading_from(fusion: nn.Module, threshold: float) -> Iterator[None]:
    """Within it, experts with a smaller share are not read; afterwards, come what may, the threshold is as before.
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
def what_is_read(answerer: Answerer, seen: Seen, tasks: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Which visual tokens (Q, M) and which experts (Q, E) the language model reads for each question, as bool.

    A fusion with a threshold reads the experts' own tokens, so an expert is read if one of its tokens is; of any other
    an expert counts as read if it has a share.
    """
    model = answerer.model
    owner_T = torch.arange(len(model.experts.names)).repeat_interleave(torch.tensor(model.experts.token_counts))
    tokens, experts = [], []
    for task in tasks:
        turns, features = turns_of(seen, task), pictures_of(seen, task)
        for start in range(0, len(turns), answerer.batch):
            part = turns[start : start + answerer.batch]
            visual = fused(answerer, [turn.question for _, turn in part], features, [picture for picture, _ in part])
            read_QM = visual.valid
            if visual.bias is not None:
                read_QM = read_QM & (visual.bias[:, 0] > UNREAD / 2)
            tokens.append(read_QM)
            if hasattr(model.fusion, "threshold"):
                own = [read_QM[:, owner_T == expert].any(1) for expert in range(len(model.experts.names))]
                experts.append(torch.stack(own, 1))
            else:
                experts.append(visual.shares[:, 0] > 0)
    return torch.cat(tokens), torch.cat(experts)


def fused(answerer: Answerer, questions: Sequence[str], features: Features, pictures: Sequence[int]) -> VisualTokens:
    """What the language model gets to read for each of some questions, one per row, without running it."""
    inputs = answerer.prompts(questions, pictures=False)
    embeds_QLD = answerer.model.get_input_embeddings()(inputs["input_ids"])
    asked_QL1 = inputs["question_mask"].to(embeds_QLD.dtype).unsqueeze(-1)
    question_QD = (embeds_QLD * asked_QL1).sum(1) / asked_QL1.sum(1)
    shown = {name: part.rows(torch.tensor(pictures)) for name, part in features.items()}
    return answerer.model.fuse(shown, answerer.present(len(pictures)), question_QD.unsqueeze(1), None)
