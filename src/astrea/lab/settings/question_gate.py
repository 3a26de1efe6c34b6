"""Experts chosen by the question, before any of them has looked: the gate's weights of a usual picture.

Letters: B questions, P pictures, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from astrea.evaluation.generate import Features, Predictor
from astrea.lab.settings.budget import Budget, cost_share

USUAL = 16
"""Pictures that a question's weights are averaged over: what is left depends on the question alone."""


class QuestionGate(Predictor):
    """Answers each question with the experts alone that have the most expected weight and fit the budget.

    Args:
        usual: features of at least one picture, none of them of the questions'.
        sizes: tokens of every expert.

    Attributes:
        asked: the experts that each question so far was answered with.
    """

    def __init__(self, model: Any, tokenizer: Any, usual: Features, budget: Budget, sizes: Mapping[str, int]) -> None:
        super().__init__(model, tokenizer)
        self.usual, self.budget, self.sizes = usual, budget, sizes
        self.chosen: dict[str, list[str]] = {}
        self.asked: list[list[str]] = []

    @torch.inference_mode()
    def weights(self, question: str) -> Tensor:
        """A question's weights (E,), the mean over the usual pictures."""
        count = min(USUAL, len(next(iter(self.usual.values())).tokens))
        found: Tensor = self.model.shares(
            **self.prompts([question] * count, pictures=True),
            features=self.rows(self.usual, slice(0, count)),
            present=self.present(count),
        )
        return found.float().mean(0).cpu()

    def experts(self, question: str) -> list[str]:
        """The experts that are computed for a question."""
        if question not in self.chosen:
            names = self.model.experts.names
            worth = dict(zip(names, self.weights(question).tolist(), strict=True))
            order = sorted(names, key=lambda name: -worth[name])
            self.chosen[question] = self.budget.fill(order, self.sizes)
        return self.chosen[question]

    def present_for(self, questions: Sequence[str]) -> Tensor:
        """See `Predictor.present_for`; notes what is used."""
        chosen = [self.experts(question) for question in questions]
        self.asked += chosen
        return torch.tensor(
            [[name in some for name in self.model.experts.names] for some in chosen], device=self.model.device
        )

    def cost(self, costs: Mapping[str, float]) -> float:
        """The mean part, over the questions so far, of what all experts cost, 0..1."""
        return sum(cost_share(some, costs) for some in self.asked) / len(self.asked)

    def used(self) -> dict[str, float]:
        """By expert, the share of the questions so far that it was computed for."""
        count = len(self.asked)
        return {name: sum(name in some for some in self.asked) / count for name in self.model.experts.names}
