"""Token pruning: which visual tokens a question is likely to need, so that the others need not be read.

Letters: B pictures, S questions per picture, M visual tokens, D language-model width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.fusion.draws import rand_rows

MAX_THRESHOLD = 0.2
"""The highest threshold that is drawn in training."""

SHARED, SURE, NAMED = 3.0, 2.0, 4.0
"""How much a token's score depends on its expert's gate weight, on the token's confidence, and on the cosine between
the question and the token."""

SOME = 0.05
"""The cosine above which a question counts as naming something in the picture."""


@torch.no_grad()
def token_score(
    log_share_BSM: Tensor,
    lean_BS: Tensor,
    confidence_BM: Tensor,
    valid_BM: Tensor,
    words_BMD: Tensor | None,
    question_BSD: Tensor,
) -> Tensor:
    """How useful each token is expected to be for each question (B, S, M): 1 = the average token, infinite for the best
    token of a picture, so that one is always read.

    The score grows with the gate weight of the token's expert, with the token's confidence, and with the cosine between
    the question (its mean word) and the token. For a question that names nothing in the picture ("describe it") the
    cosine is left out. With gate weights alone, a question about one object would read all of an expert's tokens.

    Args:
        log_share_BSM: log gate weight of each token's expert, relative to equal weights.
        lean_BS: sum of the gate weights; where it is small no single expert is needed, and all scores are small.
    """
    sure_BM = SURE * confidence_BM.clamp_min(1e-4).log()
    score_BSM = (SHARED * log_share_BSM + sure_BM.unsqueeze(1)).masked_fill(~valid_BM.unsqueeze(1), -torch.inf)
    if words_BMD is not None:
        named_BSM = F.normalize(question_BSD, dim=-1) @ words_BMD.transpose(1, 2)
        most_BS1 = named_BSM.masked_fill(~valid_BM.unsqueeze(1), -1.0).amax(-1, keepdim=True)
        score_BSM = score_BSM + NAMED * named_BSM * (most_BS1 / SOME).clamp(0, 1)
    part_BSM = score_BSM.softmax(-1).nan_to_num()
    scores_BSM = part_BSM * valid_BM.sum(-1).view(-1, 1, 1) * lean_BS.unsqueeze(-1)
    return scores_BSM.masked_fill(part_BSM == part_BSM.amax(-1, keepdim=True), torch.inf)


def draw_thresholds(log_share_BSM: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Thresholds for training (B, S, 1): with probability ``chance`` a question gets a positive one, so that the
    language model learns to answer from few tokens; 0 for the other questions."""
    draw = rand_rows(*log_share_BSM.shape[:2], 1, generator=generator, per_question=True) / chance
    return (MAX_THRESHOLD * draw).masked_fill(draw > 1, 0.0).to(log_share_BSM)
