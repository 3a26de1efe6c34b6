"""What is drawn per row, when a process has only some rows of the batch: the same as if it had them all.

Letters: B rows, S questions per row, E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor


class RowGenerator(torch.Generator):
    """A generator for ``rows`` that are a slice of a larger batch, beginning at ``start``.

    Attributes:
        batch: rows of the whole batch. questions: S of the whole batch.
    """

    batch: int
    questions: int
    start: int


def for_rows(generator: torch.Generator, *, batch: int, questions: int, start: int) -> RowGenerator:
    """A generator that goes on where another one is, for the rows from ``start`` on of a batch."""
    made = RowGenerator(device=generator.device)
    made.set_state(generator.get_state())
    made.batch, made.questions, made.start = batch, questions, start
    return made


def rand_rows(*shape: int, generator: torch.Generator, per_question: bool = False) -> Tensor:
    """Uniform numbers in 0..1 of a shape (B, ...), or (B, S, ...) if they are drawn ``per_question``.

    From a `RowGenerator` come the numbers that belong to these rows in a draw for the whole batch.
    """
    if not isinstance(generator, RowGenerator):
        return torch.rand(shape, generator=generator, device=generator.device)
    rest = (generator.questions, *shape[2:]) if per_question else shape[1:]
    drawn = torch.rand((generator.batch, *rest), generator=generator, device=generator.device)
    mine = drawn[generator.start : generator.start + shape[0]]
    return mine[:, : shape[1]] if per_question else mine


def draw_phrases(present_BE: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Which of an expert's two phrases each picture does without: (B, E), 0 or 1, and -1 for neither.

    Args:
        chance: that there is one; either is as likely.
    """
    draw = rand_rows(*present_BE.shape, generator=generator).to(present_BE.device)
    lost = torch.full_like(present_BE, -1, dtype=torch.long).masked_fill(draw < chance, 1)
    return lost.masked_fill(draw < chance / 2, 0)
