"""What a fusion strategy sees of a training step. Training implements it; strategies know nothing else of training.

Letters: B pictures, R rows of the whole batch, S questions per row, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.alignment.matrix import ExpertMatrix
from astrea.experts.protocol import ExpertFeatures


class Regularisation(Protocol):
    """The settings of a recipe that say how experts are kept from starving or dominating."""

    @property
    def expert_dropout(self) -> float:
        """Probability that a picture loses one expert."""

    @property
    def load_rate(self) -> float:
        """Step size of a load bias; 0 = off."""

    @property
    def contribution_every(self) -> int:
        """Steps between two measurements of contributions; 0 = none."""


class Output(Protocol):
    """What the model returned for the local rows, see `astrea.model.outputs.AstreaOutput`."""

    label_logits: Tensor | None
    shares: Tensor | None
    aux_loss: Tensor | None
    router_logits: Tensor | None


@dataclass(frozen=True, slots=True)
class Answers:
    """What one pass of the model says where the answers of the local rows stand.

    Letters: N words of answers, V vocabulary, Q questions of the local rows (R S, row by row).
    logits: (N, V). labels: (N,) the right words. question: (N,) which of the Q questions a word answers. weights: (N,)
    of each word in the loss of the whole batch. questions: Q.
    """

    logits: Tensor
    labels: Tensor
    question: Tensor
    weights: Tensor
    questions: int

    def losses(self) -> Tensor:
        """Negative log-likelihood of every word (N,)."""
        return F.cross_entropy(self.logits, self.labels, reduction="none")

    def mean(self, values_N: Tensor) -> Tensor:
        """This process's part of the weighted mean over the words of the whole batch, as the answers' loss is one."""
        return (values_N * self.weights).sum()

    def per_question(self, values_N: Tensor) -> Tensor:
        """The mean over the words of each question (Q,); 0 where there are none."""
        count = torch.bincount(self.question, minlength=self.questions).clamp_min(1)
        return values_N.new_zeros(self.questions).index_add(0, self.question, values_N) / count

    def right(self) -> Tensor:
        """Whether every word of an answer is the likeliest, given those before it: (Q,) bool, false without words."""
        hit_Q = self.per_question((self.logits.argmax(-1) == self.labels).float())
        return hit_Q == 1

    def first(self) -> Tensor:
        """Where the first word of each question's answer stands (Q,), -1 where there is none."""
        place = torch.arange(len(self.question), device=self.question.device)
        none = len(place)
        found = place.new_full((self.questions,), none).scatter_reduce(0, self.question, place, "amin")
        return found.masked_fill(found == none, -1)


class TrainingStep(Protocol):
    """One micro-step of instruction tuning.

    Several processes may share the batch: each computes the loss of its ``local_rows``, divided by the size of the
    *whole* batch, so that the parts add up. What is drawn is the same on every process.

    Attributes:
        number: optimizer step of the stage, from 0.
        weights: the recipe's weight of every loss; 0 or missing = off.
        trains_fusion: the strategy's parameters are learned in this stage.
        settings: see `Regularisation`. device: where the model is.
        groups: (R, S) kind of each question, -1 where a row has no such question or no picture.
        complete: (R,) bool, rows with pictures for which every expert is present and none is corrupted.
        local_rows: the rows of this process.
    """

    number: int
    weights: Mapping[str, float]
    trains_fusion: bool
    groups: Tensor
    complete: Tensor
    local_rows: slice

    @property
    def settings(self) -> Regularisation: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def labels(self) -> Mapping[str, Sequence[str | None]]:
        """The names of every expert's channels."""

    def generator(self, purpose: str) -> torch.Generator:
        """Random numbers of this micro-step, the same on every process."""

    def pictures(self, count: int, generator: torch.Generator) -> dict[str, ExpertFeatures] | None:
        """Uncorrupted features of about ``count`` pictures, neighbours of which differ; None if there are too few.

        These are further pictures where their features are at hand, or else those of the batch, repeated.
        """

    def align(self, features: Mapping[str, ExpertFeatures], present_BE: Tensor) -> ExpertMatrix:
        """The expert matrix of some pictures, without gradient."""

    def leave_one_out(self, rows: int) -> Tensor:
        """Answer the first ``rows`` rows again, without each expert: the increase of each question's loss in nats,
        (R', S, E) with R' = min(rows, R); the same on every process, and without gradient."""

    def forward(self, purpose: str, only: Tensor | None = None) -> Output:
        """One more pass of the model over the local rows, with gradient.

        Args:
            purpose: of the random numbers that it draws, see `generator`.
            only: (E,) bool, exactly the experts that are present; None = those of the step.
        """

    def answers(self, output: Output) -> Answers:
        """What a pass says where the answers of the local rows stand."""

    def per_row(self, shares: Tensor | None, like: Tensor) -> Tensor:
        """What the local pictures' questions got (`Output.shares`), averaged over the pictures of each local row:
        (local R, S, E), zeros for rows without a picture. ``like``: (E,), gives device and type."""

    def local_slice(self, count: int) -> slice:
        """This process's part of ``count`` things that all processes share."""

    def gather(self, local: Tensor, count: int) -> Tensor:
        """All ``count`` rows, from each process's `local_slice` of them."""

    def any(self, flag: bool) -> bool:
        """Whether it holds on any process. Every process must ask."""
