"""Whether each expert is to be believed about this picture, judged by whether the others say the same.

Letters: B pictures, E experts, T all experts' tokens, D language-model width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix


class Trust(nn.Module):
    """``log p(expert e is honest | picture)``, from agreement, confidence and the expert's mean token.

    Pre-alignment put all experts into one space of words, so it can be seen whether they talk about the same picture:
    ``A_ef``, how well the tokens of e are echoed by those of f. An expert that is confidently wrong (another picture's
    boxes, a stuck sensor) is the one the others do not echo. Our own addition to the paper's allocator; trained with
    experts that are made to lie (`astrea.training.lies`).
    """

    def __init__(self, width: int, experts: int, *, hidden: int = 32, start: float = 3.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.from_agreement = nn.Linear(3 * experts, hidden)
        self.from_confidence = nn.Linear(1, hidden, bias=False)
        self.from_expert = nn.Linear(width, hidden, bias=False)
        self.own = nn.Parameter(torch.zeros(experts, hidden))
        self.score = nn.Linear(hidden, 1)
        nn.init.normal_(self.score.weight, std=0.02)
        nn.init.constant_(self.score.bias, start)

    def forward(self, matrix: ExpertMatrix) -> Tensor:
        """Logits (B, E) that each expert is honest; what they say of an absent expert means nothing."""
        mean_BED, sure_BE = matrix.summary()
        echo_BEE = agreement(matrix)
        here_BEE = matrix.present.unsqueeze(1).expand_as(echo_BEE).to(echo_BEE.dtype)
        seen = torch.cat([echo_BEE, echo_BEE.transpose(1, 2), here_BEE], -1)
        hidden = self.from_agreement(seen) + self.from_confidence(sure_BE.unsqueeze(-1))
        hidden = hidden + self.from_expert(self.norm(mean_BED)) + self.own
        return self.score(torch.tanh(hidden)).squeeze(-1)


def agreement(matrix: ExpertMatrix) -> Tensor:
    """``A_ef`` (B, E, E): the confidence-weighted mean, over e's tokens, of the cosine to the nearest token of f.

    Zero where either has nothing to say. Without gradient: agreement is looked at, not sought.
    """
    with torch.no_grad():
        unit_BTD = F.normalize(matrix.tokens, dim=-1)
        cosine_BTT = (unit_BTD @ unit_BTD.transpose(1, 2)).masked_fill(~matrix.valid.unsqueeze(1), -1.0)
        member_TE = F.one_hot(matrix.expert, matrix.experts).bool()
        nearest_BTE = torch.stack([cosine_BTT[:, :, member].amax(-1) for member in member_TE.T], -1)
        weight_BT = matrix.confidence * matrix.valid
        weight_BTE = weight_BT.unsqueeze(-1) * member_TE
        echo_BEE = torch.einsum("bte,btf->bef", weight_BTE, nearest_BTE)
        echo_BEE = echo_BEE / weight_BTE.sum(1).clamp_min(1e-6).unsqueeze(-1)
        speaks_BE = weight_BTE.sum(1) > 0
        return echo_BEE * (speaks_BE.unsqueeze(1) & speaks_BE.unsqueeze(2))
