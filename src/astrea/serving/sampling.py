"""From scores to the next token of one answer.

Letters: V words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen.

    temperature: 0 = the likeliest, as ``generate(do_sample=False)`` does. top_p: among the likeliest tokens that
    together have this probability. seed: makes draws repeatable, whatever else is decoded at the time; None = any.
    logprobs: how many of the likeliest tokens are told beside each token, or None = no log-probability at all.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    logprobs: int | None = None

    def generator(self, choice: int) -> torch.Generator:
        """The source of chance for one of a request's answers, each of which has its own."""
        made = torch.Generator()
        if self.seed is None:
            made.seed()
        else:
            made.manual_seed((self.seed * 1_000_003 + choice) % (1 << 63))
        return made


class Chosen(NamedTuple):
    """A token, and if asked for its log-probability in nats and those of the likeliest tokens."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def choose(scores_V: Tensor, best: int, sampling: Sampling, generator: torch.Generator) -> Chosen:
    """The next token.

    Args:
        scores_V: of all words, -inf for those that may not be said. best: the highest one's place.
    """
    token = best
    if sampling.temperature > 0:
        token = drawn(scores_V.cpu() / sampling.temperature, sampling.top_p, generator)
    if sampling.logprobs is None:
        return Chosen(token)
    logprobs_V = scores_V.float().log_softmax(-1)
    top = logprobs_V.topk(min(sampling.logprobs, len(logprobs_V)))
    pairs = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))
    return Chosen(token, float(logprobs_V[token]), pairs)


def drawn(scores_V: Tensor, top_p: float, generator: torch.Generator) -> int:
    """A token drawn by its probability, among the likeliest that together have ``top_p``."""
    probabilities_V, order_V = scores_V.double().softmax(-1).sort(descending=True, stable=True)
    # The token with which the sum reaches top_p is the last one; the first is never left out.
    before_V = probabilities_V.cumsum(-1) - probabilities_V
    kept_V = probabilities_V.masked_fill(before_V >= top_p, 0.0)
    kept_V[0] = probabilities_V[0]
    return int(order_V[torch.multinomial(kept_V, 1, generator=generator)])
