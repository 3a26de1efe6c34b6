"""What every way of pretraining the small language model shares: all of it learns."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from transformers import PreTrainedModel

from astrea.training.loop import Objective
from astrea.training.optimizer import is_hidden_matrix


class WholeModelObjective(Objective):
    """Trains every weight of a language model; batches and loss are the subclass's."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model.train()

    def trainable(self) -> Iterable[tuple[str, nn.Parameter, float]]:
        return ((name, p, 1.0) for name, p in self.model.named_parameters())

    def is_hidden(self, name: str, parameter: nn.Parameter) -> bool:
        return is_hidden_matrix(self.model, parameter)
