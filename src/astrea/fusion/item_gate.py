"""A gate that looks: what each expert is worth for one question about one picture, in nats.

Letters: B pictures, S questions per picture, E experts, T all experts' tokens, D language-model width, P inner width,
H heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.contribution import NOBODY, NOISE
from astrea.fusion.gate import Gate

INNER, HEADS, HIDDEN = 32, 4, 64
START = -2.5
"""Logit of a contribution before anything is learned: 0.08 nats."""


class ItemGate(Gate):
    """Predicts the contribution ``c_e`` of each expert to the answer of this question about this picture, in nats, and
    weighs experts by it.

        c_e = exp(a_e);  g_e = sqrt(c_e + 0.005) exp(b_e);  w_e = g_e / (1 + sum g)

    over the experts present: the weights that `astrea.fusion.contribution.Contributions.targets` gives to measured
    contributions, with those predicted for this item in their place. They are absolute: an expert's ``g`` does not
    depend on the others', and ``w_e / w_0`` tells ``c_e`` (`predicted_contributions`).

    ``a_e`` comes from what the question finds in the expert, beside what it finds in all others; an expert is missed
    where it says what was asked and the others do not:

        r_e, s_e = values and log-sum-exp of the question's attention over the tokens of e (and a null token of score
                   0), per head, each token's score raised by the log of its confidence;  r_-e, s_-e: over all others'
        a_e = v_e . norm(q) + u_e . MLP(W_q norm(q), r_e, s_e, r_-e, s_-e, mean confidence of e)

    Trained on measured contributions alone (`astrea.fusion.item_calibration`): inputs are detached, and no gradient of
    the answers reaches it. Source: our own.

    Args:
        joined: (E,) experts that were added when all else was trained; they are weighed, and change nothing for others.
    """

    def __init__(
        self,
        width: int,
        experts: int,
        *,
        inner: int = INNER,
        heads: int = HEADS,
        hidden: int = HIDDEN,
        joined: Sequence[bool] | None = None,
    ) -> None:
        super().__init__(experts)
        self.heads = heads
        self.trained = [not later for later in (joined or [False] * experts)]
        self.norm_q, self.norm_x = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.from_question = nn.Linear(width, inner), nn.Linear(width, inner)
        self.key, self.value = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.first = nn.Linear(3 * inner + 2 * heads + 1, hidden)
        self.own = nn.Parameter(torch.randn(experts, hidden) * 0.1)
        self.second = nn.Linear(hidden, hidden)
        self.score = nn.Parameter(torch.randn(experts, hidden) * 0.02)
        self.bias_question = nn.Linear(width, experts)
        nn.init.zeros_(self.bias_question.weight)
        nn.init.constant_(self.bias_question.bias, START)

    def weigh(self, question_BSD: Tensor, matrix: ExpertMatrix) -> Tensor:
        log_nats = self(question_BSD, matrix)
        logits = torch.logaddexp(log_nats, log_nats.new_tensor(math.log(NOISE))) / 2 + self.load_bias
        present = matrix.present.unsqueeze(1)
        nobody = logits.new_full((*logits.shape[:2], 1), math.log(NOBODY) / 2)
        return torch.cat([logits.masked_fill(~present, -1e4), nobody], -1).softmax(-1)[..., :-1] * present

    def forward(self, question_BSD: Tensor, matrix: ExpertMatrix) -> Tensor:
        """``a``, the logs of the predicted contributions in nats (B, S, E); meaningless for absent experts."""
        asked_BSD = self.norm_q(question_BSD.detach())
        # Of a missing expert nothing may count, not even NaN times zero.
        tokens_BTD = self.norm_x(matrix.tokens.detach().masked_fill(~matrix.valid.unsqueeze(-1), 0))
        member_ET = F.one_hot(matrix.expert, matrix.experts).bool().T
        heard_BT = matrix.valid & torch.tensor(self.trained, device=matrix.valid.device)[matrix.expert]
        own, others = member_ET & matrix.valid.unsqueeze(1), ~member_ET & heard_BT.unsqueeze(1)
        sure_BT = matrix.confidence.detach()
        score_BSHT = self._scores(asked_BSD, tokens_BTD) + sure_BT.clamp_min(1e-4).log()[:, None, None]
        values_BTP = self.value(tokens_BTD)
        found, mass = self._read(score_BSHT, values_BTP, own)
        elsewhere, other_mass = self._read(score_BSHT, values_BTP, others)
        here_BET = own.to(tokens_BTD.dtype)
        sure_BE = (sure_BT.unsqueeze(1) * here_BET).sum(-1) / here_BET.sum(-1).clamp_min(1)
        each = (*found.shape[:3], -1)
        parts = [
            *(self.from_question(asked_BSD).unsqueeze(2).expand(each), found, mass, elsewhere, other_mass),
            sure_BE[:, None, :, None].expand(*found.shape[:3], 1),
        ]
        hidden = F.gelu(self.first(torch.cat(parts, -1)) + self.own)
        hidden = F.gelu(self.second(hidden))
        log_nats: Tensor = self.bias_question(asked_BSD) + (hidden * self.score).sum(-1)
        return log_nats

    def _scores(self, asked_BSD: Tensor, tokens_BTD: Tensor) -> Tensor:
        """Of the question's attention to every token (B, S, H, T)."""
        query, key = (part.unflatten(-1, (self.heads, -1)) for part in (self.query(asked_BSD), self.key(tokens_BTD)))
        return torch.einsum("bshp,bthp->bsht", query, key) / math.sqrt(query.shape[-1])

    def _read(self, score_BSHT: Tensor, values_BTP: Tensor, among_BET: Tensor) -> tuple[Tensor, Tensor]:
        """What the question finds among some tokens, for each expert: values (B, S, E, P), log-sum-exp (B, S, E, H)."""
        score = score_BSHT.unsqueeze(2).masked_fill(~among_BET[:, None, :, None], -1e4)
        score = F.pad(score, (0, 1))
        attention = score.softmax(-1)[..., :-1]
        values = values_BTP.unflatten(-1, (self.heads, -1))
        return torch.einsum("bseht,bthp->bsehp", attention, values).flatten(3), score.logsumexp(-1)


def predicted_contributions(weights: Tensor, load_bias_E: Tensor) -> Tensor:
    """The contributions in nats (..., E) that gate weights (..., E) stand for: the inverse of `ItemGate.weigh`, and of
    `astrea.fusion.contribution.Contributions.targets`. Meaningless for absent experts."""
    null = (1 - weights.sum(-1, keepdim=True)).clamp_min(1e-6)
    ratio = weights / null * math.sqrt(NOBODY) * torch.exp(-load_bias_E)
    return (ratio.square() - NOISE).clamp_min(0)


def squashed(nats: Tensor) -> Tensor:
    """``c / (1 + c)`` of what is above zero: 0 nats are 0, 1 nat is 0.5, and no single item outweighs the rest."""
    gain = nats.clamp_min(0)
    return gain / (1 + gain)
