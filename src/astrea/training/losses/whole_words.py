"""Alignment without a pass of the language model: whole words of captions against tokens made of features.

Letters: B' the pictures of this process, T tokens, V words of the training data, D language-model width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.training.context import TrainingContext
from astrea.training.losses.protocol import AlignLoss, AlignStep

UNREAD = -1e4


class WholeWordContrast(AlignLoss):
    """``caption_words``: the words of a picture's captions, each found by whichever of its tokens fits best.

    Of every picture ``-mean over its words w of log softmax_w(logsumexp_t cos(token_t, w) / temperature)``, all words
    of the training data as negatives, both sides centred (`astrea.language.whole_words`). Nobody says which token is
    which word: multiple instances, as in MIL-NCE (arXiv 1912.06430). The temperature is the contrast's.

    Words are told by all captions of a picture, so that none is a negative of a picture that another caption names it
    in. Only tokens of features learn; those of words are words already.
    """

    def __init__(self, ctx: TrainingContext) -> None:
        super().__init__(ctx)
        self.words, self.mean_D, self.vectors_VD = ctx.whole_words

    def teaches(self, names: Sequence[str]) -> bool:
        alignment = self.ctx.model.alignment
        return not alignment.has_phrases or any(any(alignment.adapters[name].features) for name in names)

    def __call__(self, step: AlignStep) -> Tensor:
        matrix = step.matrix
        learn_T = torch.isin(matrix.expert, torch.tensor(self._numbers(step.learning), device=matrix.expert.device))
        if matrix.features is not None:
            learn_T = learn_T & matrix.features
        tokens_BTD, read_BT = matrix.tokens[:, learn_T], matrix.valid[:, learn_T]
        every = [self.words.of(texts) for texts in step.samples.texts]
        total = sum(1 for some in every if some)
        target_BV = tokens_BTD.new_zeros(len(tokens_BTD), len(self.words.words))
        for row, some in enumerate(every[step.local]):
            target_BV[row, some] = 1.0 / max(1, len(some))
        target_BV = target_BV * read_BT.any(1, keepdim=True)
        if not total or not learn_T.any():
            return matrix.tokens.sum() * 0
        unit_BTD = F.normalize(tokens_BTD - self.mean_D.to(tokens_BTD.dtype), dim=-1)
        score_BTV = unit_BTD @ self.vectors_VD.to(unit_BTD.dtype).T / self.ctx.contrast.temperature()
        best_BV = score_BTV.masked_fill(~read_BT.unsqueeze(-1), UNREAD).logsumexp(1)
        return -(target_BV * best_BV.log_softmax(-1)).sum() / total

    def _numbers(self, names: Sequence[str]) -> list[int]:
        return [self.ctx.model.alignment.names.index(name) for name in names]
