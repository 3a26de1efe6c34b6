"""Which features are like those that an adapter was taught words for.

Aligned features name what training showed exactly, and give anything else one of the same names. How near a token is to
the nearest of the words that its adapter was taught tells the two apart (maximum softmax and maximum logit do the same
for classifiers: arXiv 1610.02136, 1911.11132). A finding that is near to none is read by its expert's own words alone.

Letters: B pictures, T tokens, E experts, V words, D language-model width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.alignment.phrase_ids import PhraseIds
from astrea.language.whole_words import table_mean, vectors_of


@dataclass(frozen=True)
class KnownWords:
    """mean: (D,) of the language model's words. vectors: (V, D), unit, centred by it. least: (E,), the smallest cosine
    of a token with its nearest word that is familiar; -1 = whatever it is."""

    mean: Tensor
    vectors: Tensor
    least: Tensor

    def nearest(self, tokens_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """The cosine (B, T) of every token with the word nearest to it, and which word that is."""
        unit_BTD = F.normalize(tokens_BTD.to(self.mean) - self.mean, dim=-1)
        cosine_BT, word_BT = (unit_BTD @ self.vectors.T).max(-1)
        return cosine_BT, word_BT

    def familiar(self, matrix: ExpertMatrix) -> ExpertMatrix:
        """The same pictures without those phrases of features that are near to no known word, of experts that have
        another phrase for the same finding."""
        assert matrix.phrase is not None
        assert matrix.features is not None
        has_two_E = torch.zeros(matrix.experts, dtype=torch.bool, device=matrix.expert.device)
        has_two_E[matrix.expert[matrix.phrase > 0]] = True
        asked_T = matrix.features & has_two_E[matrix.expert]
        # Tokens of one phrase of one finding stand together, and its expert's other phrase is between it and the next.
        first_T = torch.ones_like(asked_T)
        first_T[1:] = (matrix.phrase[1:] != matrix.phrase[:-1]) | (matrix.expert[1:] != matrix.expert[:-1])
        group_T = first_T.cumsum(0) - 1
        cosine_BK, _ = self.nearest(matrix.tokens[:, asked_T])
        strange_BK = cosine_BK < self.least[matrix.expert[asked_T]]
        strange_BG = strange_BK.new_zeros(len(strange_BK), len(group_T))
        strange_BG[:, group_T[asked_T]] = strange_BK
        return replace(matrix, valid=matrix.valid & ~strange_BG[:, group_T])


@torch.no_grad()
def known_words(
    ids: PhraseIds, names: Sequence[str], embedding: nn.Module, words: int, device: torch.device
) -> KnownWords:
    """The known words of a configuration in the space of a language model's words.

    Args:
        names: of the experts, in order. words: how many the language model has.
    """
    mean_D = table_mean(embedding, words, device)
    least_E = torch.tensor([ids.least.get(name, -1.0) for name in names], device=device)
    return KnownWords(mean_D, vectors_of(ids.known, embedding, mean_D), least_E)


def threshold(cosine_N: Tensor, right_N: Tensor, share: float, fewest: int) -> float:
    """The cosine below which a finding is strange: so large a ``share`` of the rightly named findings of the training
    pictures lies below it. -1 where fewer than ``fewest`` are named rightly: then nothing is known of this expert."""
    named = cosine_N[right_N]
    return -1.0 if len(named) < fewest else float(named.float().quantile(share))


def with_known(ids: PhraseIds, known: Sequence[Sequence[int]], least: Mapping[str, float]) -> PhraseIds:
    """The same phrases with what their adapters were taught."""
    return ids.model_copy(update={"known": tuple(map(tuple, known)), "least": dict(least)})
