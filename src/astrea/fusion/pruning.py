"""Which visual tokens a question is likely to need, so that the others need not be read.

Letters: B pictures, S questions per picture, M visual tokens, D language-model width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.fusion.draws import rand_rows

MOST_THRIFT = 0.2
"""In training, thresholds are drawn up to this."""

SHARED, SURE, NAMED = 3.0, 2.0, 4.0
"""How much a token's worth depends on its expert's share, on how sure the expert is of it, and on whether the question
names what it says."""

SOME = 0.05
"""The cosine from which on a question is taken to name something in the picture."""


@torch.no_grad()
def worth(
    log_share_BSM: Tensor,
    lean_BS: Tensor,
    confidence_BM: Tensor,
    valid_BM: Tensor,
    words_BMD: Tensor | None,
    question_BSD: Tensor,
) -> Tensor:
    """What reading each token promises (B, S, M): 1 = as much as any other one, where nothing but experts counts;
    infinite for the best of a picture.

    A question that needs no single expert, whose shares ``lean`` sum to little, is promised little by each of them.
    It grows with the share of the token's expert, with the expert's confidence in the token, and with the cosine
    between the question (its mean word) and the token. A question that names nothing in the picture ("describe it") is
    left to the first two. With shares alone, a question about one thing would read all that its expert says of the
    others.
    """
    sure_BM = SURE * confidence_BM.clamp_min(1e-4).log()
    score_BSM = (SHARED * log_share_BSM + sure_BM.unsqueeze(1)).masked_fill(~valid_BM.unsqueeze(1), -torch.inf)
    if words_BMD is not None:
        named_BSM = F.normalize(question_BSD, dim=-1) @ words_BMD.transpose(1, 2)
        most_BS1 = named_BSM.masked_fill(~valid_BM.unsqueeze(1), -1.0).amax(-1, keepdim=True)
        score_BSM = score_BSM + NAMED * named_BSM * (most_BS1 / SOME).clamp(0, 1)
    part_BSM = score_BSM.softmax(-1).nan_to_num()
    worth_BSM = part_BSM * valid_BM.sum(-1).view(-1, 1, 1) * lean_BS.unsqueeze(-1)
    return worth_BSM.masked_fill(part_BSM == part_BSM.amax(-1, keepdim=True), torch.inf)


def draw_thresholds(log_share_BSM: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """In training (B, S, 1): with this chance a question reads only the tokens whose worth is above a threshold, so
    that the language model learns to answer from few of them; 0 for the other questions."""
    draw = rand_rows(*log_share_BSM.shape[:2], 1, generator=generator, per_question=True) / chance
    return (MOST_THRIFT * draw).masked_fill(draw > 1, 0.0).to(log_share_BSM)
