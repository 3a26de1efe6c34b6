"""Word-level alignment: every telling word of a caption finds its token, by the language model's own embeddings.

Letters: B batch, T tokens, D language-model width, K words of the batch's captions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ALL = slice(None)


class WordContrast(nn.Module):
    """L_word: two-way contrast over the batch's words plus word BCE, on each word's best token by cosine.

    Words that more than half of all captions hold tell nothing and are left out; rarer words weigh more (by inverse
    document frequency).

    Args:
        captions: the token ids of every training caption.
        common: share of captions from which on a word is left out.
    """

    def __init__(self, captions: Iterable[Sequence[int]], vocabulary: int, *, common: float = 0.5) -> None:
        super().__init__()
        found: Counter[int] = Counter()
        total = 0
        for ids in captions:
            total += 1
            found.update(set(ids))
        weight = torch.zeros(vocabulary)
        for word, count in found.items():
            if count < common * total:
                weight[word] = torch.log(torch.tensor(total / count))
        self.register_buffer("weight", weight / weight.amax().clamp_min(1e-6), persistent=False)
        # Asked word by word in every step, for which a GPU would have to be waited for each time.
        self.counted = frozenset(weight.nonzero()[:, 0].tolist())
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.bias = nn.Parameter(torch.tensor(-5.0))

    def forward(
        self,
        tokens_BTD: Tensor,
        valid_BT: Tensor,
        captions: Sequence[Sequence[int]],
        table_VD: Tensor,
        *,
        own: slice = ALL,
        gather: Callable[[Tensor], Tensor] = lambda rows: rows,
    ) -> Tensor:
        """The loss.

        Args:
            tokens_BTD, valid_BT: of the batch's pictures, or only of the ``own`` ones.
            captions: of the whole batch.
            table_VD: the language model's word embedding, used without gradient.
            own: which pictures are here. The loss is their part of the batch's: over all parts it adds up.
            gather: makes rows of the whole batch of the own ones, with gradient.
        """
        batch = len(captions)
        words = sorted({word for ids in captions for word in ids if word in self.counted})
        if not words:
            return tokens_BTD.sum() * 0
        column = {word: k for k, word in enumerate(words)}
        present = torch.zeros(batch, len(words))
        for row, ids in enumerate(captions):
            for word in ids:
                if word in column:
                    present[row, column[word]] = 1.0
        present = present.to(tokens_BTD.device)
        names = F.normalize(table_VD.detach()[words].to(tokens_BTD.dtype), dim=-1)
        cosine = F.normalize(tokens_BTD, dim=-1) @ names.T
        best = cosine.masked_fill(~valid_BT.unsqueeze(-1), -1.0).amax(1)
        weight = self.weight[words] * present  # type: ignore[index]
        total = weight.sum().clamp_min(1e-6)
        score, here = self.scale * best, present[own]
        # Both ways: which words does this picture hold, and which pictures hold this word.
        by_word = (many_positives(score, here) * weight[own]).sum() / total
        by_picture = (many_positives(gather(score).T, present.T).T[own] * weight[own]).sum() / total
        twice = torch.tensor(2.0, device=score.device)
        bce = F.binary_cross_entropy_with_logits(score + self.bias, here, pos_weight=twice)
        return (by_word + by_picture) / 2 + bce * (len(here) / batch)


def many_positives(score_BK: Tensor, present_BK: Tensor) -> Tensor:
    """-log p of every entry against the *absent* ones of its row: several positives do not compete."""
    rivals = score_BK.masked_fill(present_BK > 0, -1e4).logsumexp(1, keepdim=True)
    return F.softplus(rivals - score_BK)
