"""Which experts are computed where not all of them may be: rules that look neither at the question nor at the picture.

They are what a choice by the question has to beat at the same budget.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

BUDGETS = ((16, 2), (28, 4), (48, 8))
"""Tokens that the language model may read, experts that may be computed."""


@dataclass(frozen=True)
class Budget:
    """tokens: most that are read. experts: most that are computed."""

    tokens: int
    experts: int

    def fill(self, order: Sequence[str], sizes: Mapping[str, int]) -> list[str]:
        """The experts of an order that fit, one after another; one too large is passed over, not the end.

        Args:
            sizes: tokens of every expert.
        """
        chosen: list[str] = []
        left = self.tokens
        for name in order:
            if len(chosen) < self.experts and sizes[name] <= left:
                chosen.append(name)
                left -= sizes[name]
        return chosen


Rule = Callable[[Sequence[str], Mapping[str, float], int], list[str]]
"""Names, what each is worth, and a seed -> the order in which experts are taken."""


def first_k(names: Sequence[str], worth: Mapping[str, float], seed: int) -> list[str]:
    """The recipe's order."""
    return list(names)


def random_k(names: Sequence[str], worth: Mapping[str, float], seed: int) -> list[str]:
    """Any order, drawn by the seed."""
    return random.Random(f"experts/{seed}").sample(list(names), len(names))


def fixed_top_k(names: Sequence[str], worth: Mapping[str, float], seed: int) -> list[str]:
    """From the largest mean contribution to the smallest; of equals the recipe's order."""
    return sorted(names, key=lambda name: -worth[name])


RULES: Mapping[str, Rule] = {"first_k": first_k, "random": random_k, "fixed_top_k": fixed_top_k}
"""Beside "all", which keeps to no budget, and "gate" (`astrea.lab.settings.question_gate`)."""


def cost_share(chosen: Sequence[str], costs: Mapping[str, float]) -> float:
    """The chosen experts' part of what all cost, 0..1."""
    return sum(costs[name] for name in chosen) / sum(costs.values())
