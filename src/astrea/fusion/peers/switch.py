"""One expert per question, chosen by a router: hard routing with a balancing loss.

Letters: B pictures, S questions, E experts, T all experts' tokens, D language-model width, H hidden width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.draws import rand_rows
from astrea.fusion.protocol import FusionStrategy, Layout, VisualTokens

UNREAD = -1e4
"""Added to the score of a token that is not read: finite, so that no softmax becomes NaN."""


class Router(nn.Module):
    """Which expert to ask: logits (B, S, E) from the question and a summary of what each expert says.

    Switch's router is one linear map of the token to be routed. Here a question asks, so there is such a map of the
    question, and beside it a small network that weighs the question against what each expert saw.
    """

    def __init__(self, width: int, experts: int, hidden: int) -> None:
        super().__init__()
        self.norm_q, self.norm_x = nn.LayerNorm(width), nn.LayerNorm(width)
        self.by_name = nn.Linear(width, experts)
        self.from_question, self.from_expert = nn.Linear(width, hidden), nn.Linear(width, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)
        # A tenth of the usual variance, as in Switch: routing starts near even and moves before it hardens.
        for last in (self.by_name, self.score):
            std = math.sqrt(0.1 / last.in_features)
            nn.init.trunc_normal_(last.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(self.by_name.bias)

    def forward(
        self, question_BSD: Tensor, expert_BED: Tensor, jitter: float, generator: torch.Generator | None
    ) -> Tensor:
        asked_BSD = shake(self.norm_q(question_BSD), jitter, generator, per_question=True)
        said_BED = shake(self.norm_x(expert_BED), jitter, generator)
        hidden_BSEH = self.from_question(asked_BSD).unsqueeze(2) + self.from_expert(said_BED).unsqueeze(1)
        found: Tensor = self.by_name(asked_BSD) + self.score(torch.tanh(hidden_BSEH)).squeeze(-1)
        return found


class TopOneSwitch(FusionStrategy):
    """Switch Transformers (arXiv 2101.03961) with vision experts: a question reads its most probable expert alone.

    There the chosen expert's output is multiplied by its probability p, which is how a gradient reaches the router.
    The experts here are read by attention, so ``log p`` is added to the scores of the chosen expert's tokens and a
    large negative number to all others'. In training the router's inputs are jittered and a balancing loss is added
    (equations 4 to 6), over the batch's questions:

        auxiliary = balance * E * sum_e f_e P_e      f_e share of questions routed to e, P_e mean probability of e

    Simplified: no capacity, since every expert looks at every picture anyway. The bias keeps the *text* from other
    experts; visual tokens of one picture still read one another inside the language model, since many questions share
    them. ``alone`` closes this way too, at the price of a row per question.

    Args:
        balance: weight of the balancing loss.
        hidden: width of the router's network.
        jitter: the router's inputs are multiplied by a number in 1 - jitter .. 1 + jitter.
        alone: other experts' tokens are not even valid, so nothing of them gets anywhere.
    """

    def __init__(
        self, layout: Layout, *, balance: float = 0.01, hidden: int = 64, jitter: float = 0.01, alone: bool = False
    ) -> None:
        super().__init__()
        self.num_tokens = layout.tokens
        self.per_question = alone
        self.balance, self.jitter = balance, jitter
        self.router = Router(layout.width, len(layout.names), hidden)
        self.slot = nn.Parameter(0.02 * torch.randn(layout.tokens, layout.width))

    def forward(
        self, matrix: ExpertMatrix, question_BSD: Tensor, generator: torch.Generator | None = None
    ) -> VisualTokens:
        said_BED, _ = matrix.summary()
        present_B1E = matrix.present.unsqueeze(1)
        logits_BSE = self.router(question_BSD, said_BED, self.jitter, generator).masked_fill(~present_B1E, UNREAD)
        probability_BSE = logits_BSE.softmax(-1) * present_B1E
        chosen_BSE = F.one_hot(probability_BSE.argmax(-1), matrix.experts) * present_B1E
        log_top_BS1 = (probability_BSE * chosen_BSE).sum(-1, keepdim=True).clamp_min(1e-9).log()
        read_BST = chosen_BSE[:, :, matrix.expert].bool()
        valid_BT = matrix.valid & read_BST[:, 0] if self.per_question else matrix.valid
        return VisualTokens(
            matrix.tokens + self.slot,
            valid_BT,
            chosen_BSE.to(matrix.tokens.dtype),
            torch.where(read_BST, log_top_BS1, UNREAD),
            auxiliary=None
            if generator is None
            else self.balance * unevenness(probability_BSE, chosen_BSE, question_BSD),
        )


def unevenness(probability_BSE: Tensor, chosen_BSE: Tensor, question_BSD: Tensor) -> Tensor:
    """``E sum_e f_e P_e`` over the questions: 1 when experts are chosen evenly, E when one takes all."""
    # A row with fewer questions than others is filled up with zeros, which ask nothing.
    asked_BS = question_BSD.abs().sum(-1) > 0
    count = asked_BS.sum().clamp_min(1)
    routed_E, mean_E = ((part * asked_BS.unsqueeze(-1)).sum((0, 1)) / count for part in (chosen_BSE, probability_BSE))
    return probability_BSE.shape[-1] * (routed_E * mean_E).sum()


def shake(x: Tensor, jitter: float, generator: torch.Generator | None, *, per_question: bool = False) -> Tensor:
    """Multiply every number by one drawn from 1 - jitter .. 1 + jitter; without a generator, leave them."""
    if generator is None:
        return x
    noise = rand_rows(*x.shape, generator=generator, per_question=per_question).to(x) * 2 - 1
    return x * (1 + jitter * noise)
