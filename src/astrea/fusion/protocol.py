"""What every way to fuse gives the language model.

Letters: B pictures, S questions per picture, E experts, T expert tokens, M visual tokens read, D width, H heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.training import Output, Regularisation, TrainingStep


@dataclass(frozen=True, slots=True)
class Layout:
    """What there is to fuse and who reads it.

    width: D of the language model. names: experts in the order of the matrix. counts: T_e of each; they sum to T.
    heads: H, attention heads of the language model.
    """

    width: int
    names: tuple[str, ...]
    counts: tuple[int, ...]
    heads: int

    @property
    def tokens(self) -> int:
        """T, all experts' tokens together."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class VisualTokens:
    """What the language model reads of a batch of pictures.

    tokens: (B, M, D). valid: (B, M) bool. shares: (B, S, E), each expert's share for each question; they sum to 1, or
    to less where a strategy has a null expert.
    bias: (B, S, M) added to every text-to-visual attention score of that question, or None.
    words: (B, M, D) or None; a word of the text adds ``gamma_h cos(its embedding, words)`` to its attention to the
    token, with the strategy's own `FusionStrategy.word_match` as gamma.
    reliable: (B, E) bool, which experts are reliable for this picture; None where the strategy does not judge.
    auxiliary: a scalar loss that the strategy wants added in training (a balancing loss, say), or None.
    cross_only: (M,) bool, tokens that text reads and other visual tokens do not; None = none.
    router_logits: (B, S, U) the scores that a routing strategy decided by; None where there are none.
    """

    tokens: Tensor
    valid: Tensor
    shares: Tensor
    bias: Tensor | None
    words: Tensor | None = None
    reliable: Tensor | None = None
    auxiliary: Tensor | None = None
    cross_only: Tensor | None = None
    router_logits: Tensor | None = None


class FusionStrategy(nn.Module, ABC):
    """From the expert matrix and the questions to visual tokens. Subclass it, and set ``num_tokens`` (M).

    A strategy is built as ``Strategy(layout, **options)``, options from the recipe. `forward` is all that it must have;
    the methods below it are for strategies that take part in their own training. Every strategy is trained by the same
    loop, which calls, in this order: `start_training` once per run; in every micro-step `progress`, `before_forward`,
    the model's forward pass, `losses`; and `after_step` when the optimizer has stepped.

    Attributes:
        per_question: the visual *tokens* depend on the question, so every row holds one question and S = 1 (or S
            times the same question). Otherwise many questions share one picture in a packed row.
        word_match: (H,) strength of the word match per attention head; None where `VisualTokens.words` is.
        learning_rates: learning rate relative to the stage's, by the beginning of a parameter's name; others have 1.
        Options: the pydantic model of its options (with ``extra="forbid"``); None = made of the constructor's keyword
            arguments, with their types and defaults.
        weighted_losses: which of the recipe's losses are the strategy's own; a weight of another is an error.
    """

    num_tokens: int
    per_question: bool = False
    Options: ClassVar[type[BaseModel] | None] = None
    weighted_losses: ClassVar[tuple[str, ...]] = ()
    word_match: nn.Parameter | None
    learning_rates: Mapping[str, float] = {}

    def __init__(self) -> None:
        super().__init__()
        self.word_match = None

    @classmethod
    def options_model(cls, given: Mapping[str, Any]) -> type[BaseModel] | None:
        """The pydantic model of its options: `Options`, unless one of the options given decides which there are."""
        return cls.Options

    @abstractmethod
    def forward(
        self, matrix: ExpertMatrix, question_BSD: Tensor, generator: torch.Generator | None = None
    ) -> VisualTokens:
        """Fuse. ``generator`` drives whatever is random in training; None means evaluation."""

    def start_training(self, groups: int) -> None:
        """A run begins. ``groups``: how many kinds of questions its data has."""

    def training_state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of a run besides parameters and buffers; the same on every process."""
        return {}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `training_state` gave."""

    def progress(self, done: float) -> None:
        """Set what follows a schedule. ``done``: part of the stage ``fuse`` that has been trained, 0..1; then 1."""

    def before_forward(self, step: TrainingStep) -> dict[str, Tensor]:
        """Losses by name that need no answers, from passes of their own: activations of the two then never add up."""
        return {}

    def losses(self, step: TrainingStep, output: Output) -> dict[str, Tensor]:
        """Losses by name, for this process's part of the batch. The recipe's weight of that name is applied to each;
        one that the recipe does not know counts as it is. By default the auxiliary loss of `forward`, if any.
        """
        auxiliary = output.aux_loss
        if not step.any(auxiliary is not None):
            return {}
        # The one loss that depends on how the batch is shared out: each process balances its own rows, as in Switch
        # Transformers. A process without pictures still names it, as the others do.
        if auxiliary is None:
            return {"auxiliary": torch.zeros((), device=step.device)}
        rows = step.local_rows
        return {"auxiliary": auxiliary * ((rows.stop - rows.start) / len(step.groups))}

    def figures(self, step: TrainingStep, output: Output) -> dict[str, float]:
        """What else the training log says of a step, such as how the load is spread: this process's part of it."""
        return {}

    def after_step(self, settings: Regularisation) -> None:
        """The optimizer has stepped: move what is no parameter, such as a load bias."""


def equal_shares(present_BE: Tensor, questions: int) -> Tensor:
    """Equal shares (B, S, E) over present experts, for strategies that do not weigh: zeros where none is present."""
    count = present_BE.sum(-1, keepdim=True).clamp_min(1)
    return (present_BE / count).unsqueeze(1).expand(-1, questions, -1)
