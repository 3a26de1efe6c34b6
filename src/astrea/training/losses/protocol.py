"""What a loss is: one term of a stage's objective, by name in the recipe's ``losses`` with its weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from astrea.alignment.heads import PictureHead
from astrea.alignment.matrix import ExpertMatrix
from astrea.data.protocol import Samples
from astrea.experts.protocol import ExpertFeatures
from astrea.model.outputs import AstreaOutput
from astrea.training.context import CaptionBatch, TrainingContext
from astrea.training.stages.step import InstructStep


class Loss:
    """Base of `InstructLoss` and `AlignLoss`. A loss is built once per stage, as ``Class(ctx)``, and has no parameters.

    Several processes may share a batch. Each computes its part of the batch's loss: a sum over its own rows, divided by
    the size of the *whole* batch, so that the parts add up.
    """

    def __init__(self, ctx: TrainingContext) -> None:
        self.ctx = ctx

    def after_step(self) -> None:
        """The optimizer has stepped."""


class InstructLoss(Loss, ABC):
    """A loss of the stages ``fuse`` and ``tune``."""

    @abstractmethod
    def __call__(self, step: InstructStep, output: AstreaOutput) -> Tensor | None:
        """A scalar with gradient, or None where this batch has nothing to learn from (on every process alike).

        Args:
            step: the batch, the features of its pictures, and the model as ``step.ctx.model``.
            output: of the model for the local rows: logits (R, L, V), shares (N, S, E) and the loss of the answers.
        """


@dataclass(frozen=True)
class AlignStep:
    """One micro-step of alignment by contrast.

    Letters: B samples of the whole batch, each with one picture; B' the local ones; P contrast width.
    samples, captions: of the whole batch. local: which of them are this process's. features: what the experts saw in
    the B' pictures. matrix, picture: of the experts that learn, with gradient: their tokens, and (B', P) pooled.
    head: makes ``picture`` of ``matrix`` when a loss asks for it.
    aligned: names of the experts that are aligned already. number: steps of the whole stage before this one.
    """

    samples: Samples
    captions: CaptionBatch
    local: slice
    features: Mapping[str, ExpertFeatures]
    matrix: ExpertMatrix
    head: PictureHead
    learning: tuple[str, ...]
    aligned: tuple[str, ...]
    number: int

    @cached_property
    def picture(self) -> Tensor:
        """The pooled pictures (B', P)."""
        found: Tensor = self.head(self.matrix.tokens, self.matrix.valid)
        return found


class AlignLoss(Loss, ABC):
    """A loss of the stage ``align`` (by contrast)."""

    def teaches(self, names: Sequence[str]) -> bool:
        """Whether these experts can learn anything from it; the same on every process."""
        return True

    @abstractmethod
    def __call__(self, step: AlignStep) -> Tensor | None:
        """A scalar with gradient, or None where this batch has nothing to learn from (on every process alike)."""
