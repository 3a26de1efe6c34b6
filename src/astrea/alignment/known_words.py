"""The words that adapters are taught: which one features are nearest to, and which features are near to none.

Aligned features name what training showed exactly, and give anything else one of the same names. How near a token is to
the nearest of the words that its adapter was taught tells the two apart (maximum softmax and maximum logit do the same
for classifiers: arXiv 1610.02136, 1911.11132), and better so together with what other experts see in the same place:
the cosines, each in deviations from what is usual for its expert, are averaged. A finding that is near to no word is
read by its expert's own words alone.

Where an expert's phrase asks for it (``{feature:name}``), the nearest word is written out: a language model reads it as
it reads any text, with nothing to learn, and can repeat it in an answer.

Letters: B pictures, T tokens, K tokens of features, E experts, V words, P pieces of a word, D language-model width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.alignment.phrase_ids import PhraseIds
from astrea.alignment.phrases import COUNTED, NONE, padded
from astrea.language.whole_words import table_mean, vectors_of

NEAR = 0.2
"""How far apart two experts may see the middle of one thing, in sides of the picture."""


@dataclass(frozen=True)
class KnownWords:
    """mean: (D,) of the language model's words. vectors: (V, D), unit, centred by it. least: (E,), the smallest
    `nearness` of a token that is familiar; -inf = whatever it is. usual: (E, 2), mean and deviation of the cosines of
    what is rightly named; NaN = not known, so that cosines of such experts stay as they are and tell nothing of what
    other experts see. spelling: (V, P) long, the tokens that a word is written out with, `NONE` behind those of short
    ones; None = with none. counts: (N, P) long, the same of the numbers 1..N."""

    mean: Tensor
    vectors: Tensor
    least: Tensor
    usual: Tensor
    spelling: Tensor | None = None
    counts: Tensor | None = None

    def nearest(self, tokens_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """The cosine (B, T) of every token with the word nearest to it, and which word that is."""
        unit_BTD = F.normalize(tokens_BTD.to(self.mean) - self.mean, dim=-1)
        cosine_BT, word_BT = (unit_BTD @ self.vectors.T).max(-1)
        return cosine_BT, word_BT

    def nearness(self, cosine_BK: Tensor, expert_K: Tensor, places_BK2: Tensor, read_BK: Tensor) -> Tensor:
        """How near tokens are to known words (B, K): their cosines, in deviations from the usual ones, each averaged
        with those nearest to its place of the other experts.

        Args:
            expert_K: whose tokens they are. places: NaN where there is none. read: tokens that are there.
        """
        usual_K2 = self.usual[expert_K]
        known_K = ~usual_K2.isnan().any(-1)
        deviation_BK = torch.where(known_K, (cosine_BK - usual_K2[:, 0]) / usual_K2[:, 1], cosine_BK)
        apart_BKK = torch.cdist(places_BK2.nan_to_num(torch.inf), places_BK2.nan_to_num(-torch.inf))
        apart_BKK = apart_BKK.masked_fill(~(read_BK & known_K).unsqueeze(1), torch.inf).nan_to_num(torch.inf)
        total_BK, count_BK = deviation_BK.clone(), torch.ones_like(deviation_BK)
        for expert in expert_K.unique().tolist():
            its_K = (expert_K == expert).nonzero()[:, 0]
            far_BK, which_BK = apart_BKK[..., its_K].min(-1)
            there_BK = (far_BK < NEAR) & (expert_K != expert) & known_K
            other_BK = deviation_BK[:, its_K].gather(1, which_BK)
            total_BK = total_BK + torch.where(there_BK, other_BK, 0)
            count_BK = count_BK + there_BK
        return total_BK / count_BK

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
        expert_K = matrix.expert[asked_T]
        near_BK = self.nearness(cosine_BK, expert_K, matrix.places[:, asked_T], matrix.valid[:, asked_T])
        strange_BK = near_BK < self.least[expert_K]
        strange_BG = strange_BK.new_zeros(len(strange_BK), len(group_T))
        strange_BG[:, group_T[asked_T]] = strange_BK
        return replace(matrix, valid=matrix.valid & ~strange_BG[:, group_T])

    def written_out(self, matrix: ExpertMatrix) -> ExpertMatrix:
        """The same pictures with the nearest known words, and how many findings of an expert have the same one, in the
        places that are for them."""
        assert matrix.piece is not None
        assert matrix.ids is not None
        piece_T = matrix.piece
        room_K = (piece_T == 0).nonzero()[:, 0]
        if self.spelling is None or not len(room_K):
            return matrix
        _, word_BK = self.nearest(matrix.tokens[:, room_K].detach())
        matrix = written(matrix, room_K, room_K, self.spelling[word_BK])
        count_C = (piece_T == COUNTED).nonzero()[:, 0]
        if self.counts is not None and len(count_C):
            number_BK = same_before(word_BK, matrix.valid[:, room_K], matrix.expert[room_K])
            # A number belongs to the last word before it.
            of_C = torch.searchsorted(room_K, count_C) - 1
            said_BC = number_BK[:, of_C].clamp(1, len(self.counts)) - 1
            matrix = written(matrix, count_C, room_K[of_C], self.counts[said_BC])
        tokens = matrix.tokens.masked_fill((piece_T >= 0).unsqueeze(-1), 0)
        return replace(matrix, tokens=tokens)


def written(matrix: ExpertMatrix, at_K: Tensor, like_K: Tensor, ids_BKP: Tensor) -> ExpertMatrix:
    """The same pictures with word pieces from each of some tokens on, as valid and as sure as others are.

    Args:
        at: the first of each P tokens. like: the tokens that they are as valid as. ids: `NONE` where there are fewer.
    """
    assert matrix.ids is not None
    at_KP = at_K.unsqueeze(1) + torch.arange(ids_BKP.shape[-1], device=at_K.device)
    ids, valid, confidence = matrix.ids.clone(), matrix.valid.clone(), matrix.confidence.clone()
    sure_BK1 = matrix.confidence[:, like_K].unsqueeze(-1)
    ids[:, at_KP] = ids_BKP
    valid[:, at_KP] = matrix.valid[:, like_K].unsqueeze(-1) & (ids_BKP != NONE)
    confidence[:, at_KP] = torch.where(valid[:, at_KP], sure_BK1, 0)
    return replace(matrix, ids=ids, valid=valid, confidence=confidence)


def same_before(word_BK: Tensor, read_BK: Tensor, expert_K: Tensor) -> Tensor:
    """How many tokens that are read, up to each one, are of its expert and have its word: (B, K)."""
    same_BKK = (word_BK.unsqueeze(2) == word_BK.unsqueeze(1)) & read_BK.unsqueeze(1)
    same_BKK &= (expert_K.unsqueeze(1) == expert_K).tril()
    return same_BKK.sum(2)


@torch.no_grad()
def known_words(
    ids: PhraseIds, names: Sequence[str], embedding: nn.Module, words: int, device: torch.device
) -> KnownWords:
    """The known words of a configuration in the space of a language model's words.

    Args:
        names: of the experts, in order. words: how many the language model has.
    """
    mean_D = table_mean(embedding, words, device)
    least_E = torch.tensor([ids.least.get(name, -torch.inf) for name in names], device=device)
    unknown = (torch.nan, torch.nan)
    usual_E2 = torch.tensor([ids.usual.get(name, unknown) for name in names], device=device)
    spelling_VP, counts_NP = (
        torch.tensor(padded(some), dtype=torch.long, device=device) if some else None
        for some in (ids.spelling, ids.counts)
    )
    return KnownWords(mean_D, vectors_of(ids.known, embedding, mean_D), least_E, usual_E2, spelling_VP, counts_NP)


def with_known(
    ids: PhraseIds, known: Sequence[Sequence[int]], least: Mapping[str, float], spelling: Sequence[Sequence[int]] = ()
) -> PhraseIds:
    """The same phrases with what their adapters were taught."""
    told = {
        "known": tuple(map(tuple, known)),
        "spelling": tuple(map(tuple, spelling)),
        "least": dict(least),
        "usual": {},
    }
    return ids.model_copy(update=told)
