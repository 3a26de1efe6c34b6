"""Signs of many answers at once: what the model says to some questions about some pictures, and how it came to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from astrea.confidence.familiarity import Familiar
from astrea.confidence.signals import Signs, joined_signs, refuses, reliable_experts, strangeness, unknown_share
from astrea.data.packing import Turn
from astrea.evaluation.generate import Features, Predictor

AT_ONCE = 8
"""Answers whose likelihood is computed together: of more, the scores of a large vocabulary are gigabytes."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Answers to B questions, and their signs."""

    answers: list[str]
    signs: Signs


@torch.inference_mode()
def measure(
    predictor: Predictor,
    familiar: dict[str, Familiar],
    features: Features,
    questions: Sequence[str],
    pictures: Sequence[int],
    *,
    longest: int = 6,
) -> Measured:
    """Answer each question about its picture (its place in ``features``), and look at the signs of each answer.

    Args:
        longest: most tokens of an answer.
    """
    which = torch.tensor(pictures, dtype=torch.long)
    answers = predictor.answer(questions, features, which, longest=longest).texts
    strange_NE = strangeness(familiar, features)
    everything = predictor.rows(features, slice(None))
    reliable_NE = reliable_experts(predictor.model, everything, predictor.present(len(strange_NE))).cpu()
    parts = []
    for start in range(0, len(questions), predictor.batch):
        rows = slice(start, start + predictor.batch)
        likelihood = said(predictor, features, questions[rows], answers[rows], which[rows])
        unknown = [unknown_share(question, predictor.tokenizer) for question in questions[rows]]
        refused = torch.tensor([refuses(answer) for answer in answers[rows]])
        mine = which[rows]
        parts.append(Signs(refused, likelihood, strange_NE[mine], reliable_NE[mine], torch.tensor(unknown)))
    return Measured(answers, joined_signs(parts))


def said(
    predictor: Predictor, features: Features, questions: Sequence[str], answers: Sequence[str], which: Tensor
) -> Tensor:
    """log p(answer | picture, question) (B,) in nats."""
    rows = [[Turn(question, answer)] for question, answer in zip(questions, answers, strict=True)]
    found: list[Tensor] = []
    for start in range(0, len(rows), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        found += predictor.answer_likelihoods(rows[part], predictor.rows(features, which[part]))
    return torch.cat(found)
