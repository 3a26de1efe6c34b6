"""Compact experts that hand on the state before their last layer, where what they see has no words yet.

A classifier's names are a gift to whoever reads it: they are words already. Most vision models give features. With
``states: true`` a compact expert's names of things are gone, and contrastive alignment has to find the words.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.experts.protocol import Expert, ExpertFeatures


class CompactExpert(Expert):
    """An expert that has both. states: which one it hands on."""

    states: bool

    def forward(self, pixels_B3HW: Tensor) -> ExpertFeatures:
        return self.found(pixels_B3HW, states=self.states)

    @abstractmethod
    def found(self, pixels_B3HW: Tensor, *, states: bool) -> ExpertFeatures:
        """What it sees, with states in place of the names of things or with the names."""


def hand_on_states(expert: Expert, *, named: int, state: int, phrases: tuple[str, ...], only: Sequence[str]) -> None:
    """Let an expert declare states instead of its first channels.

    Args:
        named: how many of its first channels are names. state: channels that stand in their place, in the slot
            ``feature``. phrases: how its findings are then written. only: the option of that name.

    Raises:
        AstreaError: it is to speak of some names only, and has none.
    """
    if only:
        raise AstreaError("only and states", "an expert whose findings have no names can't be told which ones to give")
    more = state - named
    kept = {name: (first + more, last + more) for name, (first, last) in expert.slots.items() if first >= named}
    expert.labels = (*[None] * state, *expert.labels[named:])
    expert.width = len(expert.labels)
    expert.slots = {"feature": (0, state), **kept}
    expert.phrases, expert.multi_label = phrases, ()
