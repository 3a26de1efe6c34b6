"""Alignment without a pass of the language model: whole words of captions against tokens made of features.

Letters: B' the pictures of this process, T tokens, V words of the training data, D language-model width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.alignment.matrix import ExpertMatrix
from astrea.experts.protocol import index_select
from astrea.model.outputs import AstreaOutput
from astrea.training.context import TrainingContext
from astrea.training.losses.protocol import AlignLoss, AlignStep, InstructLoss, Loss
from astrea.training.stages.step import InstructStep

UNREAD = -1e4


class _WholeWords(Loss):
    """What both losses below compute."""

    def __init__(self, ctx: TrainingContext) -> None:
        super().__init__(ctx)
        self.words, self.mean_D, self.vectors_VD = ctx.whole_words

    def mean_over(
        self, matrix: ExpertMatrix, learning: Sequence[str], texts: Sequence[Sequence[str]], local: slice
    ) -> Tensor:
        """The loss of the local pictures' tokens as a share of the batch's mean; see `WholeWordContrast`.

        Args:
            learning: the experts that learn. texts: of every picture of the batch.
        """
        every = [self.words.of(some) for some in texts]
        total = sum(1 for some in every if some)
        told_BV = matrix.tokens.new_zeros(len(matrix.tokens), len(self.words.words))
        for row, some in enumerate(every[local]):
            told_BV[row, some] = 1.0 / max(1, len(some))
        parts = [self._of(matrix, learn_T, told_BV) for learn_T in self._tokens(matrix, learning) if learn_T.any()]
        if not total or not parts:
            return matrix.tokens.sum() * 0
        return torch.stack(parts).mean() / total

    def _tokens(self, matrix: ExpertMatrix, learning: Sequence[str]) -> list[Tensor]:
        """Which tokens learn, expert by expert: (T,) each."""
        numbers = [self.ctx.model.alignment.names.index(name) for name in learning]
        own = [matrix.expert == number for number in numbers]
        return own if matrix.features is None else [own_T & matrix.features for own_T in own]

    def _of(self, matrix: ExpertMatrix, learn_T: Tensor, told_BV: Tensor) -> Tensor:
        """The loss of one expert's tokens, as a sum over pictures."""
        tokens_BTD, read_BT = matrix.tokens[:, learn_T], matrix.valid[:, learn_T]
        unit_BTD = F.normalize(tokens_BTD - self.mean_D.to(tokens_BTD.dtype), dim=-1)
        score_BTV = unit_BTD @ self.vectors_VD.to(unit_BTD.dtype).T / self.ctx.contrast.temperature()
        best_BV = score_BTV.masked_fill(~read_BT.unsqueeze(-1), UNREAD).logsumexp(1)
        return -(told_BV * read_BT.any(1, keepdim=True) * best_BV.log_softmax(-1)).sum()


class WholeWordContrast(_WholeWords, AlignLoss):
    """``caption_words``: the words of a picture's captions, each found by whichever of its tokens fits best.

    Of every picture ``-mean over its words w of log softmax_w(logsumexp_t cos(token_t, w) / temperature)``, all words
    of the training data as negatives, both sides centred (`astrea.language.whole_words`). Nobody says which token is
    which word: multiple instances, as in MIL-NCE (arXiv 1912.06430). The temperature is the contrast's.

    Experts that learn together have a loss each, of which this is the mean: were one token of any of them enough, an
    expert that sees less well than the others would learn to say nothing.

    Words are told by all captions of a picture, so that none is a negative of a picture that another caption names it
    in. Only tokens of features learn; those of words are words already.
    """

    def teaches(self, names: Sequence[str]) -> bool:
        alignment = self.ctx.model.alignment
        return not alignment.has_phrases or any(any(alignment.adapters[name].features) for name in names)

    def __call__(self, step: AlignStep) -> Tensor:
        return self.mean_over(step.matrix, step.learning, step.samples.texts, step.local)


class WholeWordsKept(_WholeWords, InstructLoss):
    """``caption_words`` of the stages fuse and tune: the same, so that features stay near the words which `align`
    brought them to. The answers alone teach an adapter whatever the language model makes use of."""

    def __call__(self, step: InstructStep, output: AstreaOutput) -> Tensor | None:
        samples = step.batch.samples
        shown = (samples.first >= 0).nonzero()[:, 0]
        if not len(shown) or "adapters" not in step.stage.train:
            return None
        local = self.ctx.ranks.local_slice(len(shown))
        features = index_select(step.features, samples.first[shown][local])
        matrix = self.ctx.model.alignment(features)
        return self.mean_over(
            matrix, self.ctx.model.alignment.names, [samples.texts[at] for at in shown.tolist()], local
        )
