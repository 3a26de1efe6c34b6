"""What a model knows of what it is taught: the words, from the beginning where findings are written with them, and how
near to them features are, which the finished run leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from astrea.alignment.known_words import with_known
from astrea.alignment.phrase_ids import MOST_PIECES, PhraseIds, name_ids
from astrea.common.progress import Reporter
from astrea.language.labels import inside_a_sentence
from astrea.training.context import TrainingContext

PICTURES, BATCH = 256, 32
"""How many training pictures are looked at."""

FEWEST = 30
"""Findings that have to be named rightly before anything is called strange."""


def name_known_words(ctx: TrainingContext) -> None:
    """Write the words of the training data into the configuration, if any expert's features are written out as them and
    `align` teaches them. Features that are taught no words are read as the vectors that they are."""
    ids = _phrase_ids(ctx)
    if ids is not None and ids.spelled and _taught(ctx):
        _configure(ctx, ids)


@torch.no_grad()
def learn_known_words(ctx: TrainingContext, report: Reporter) -> None:
    """Write the words of the training data, and the least familiar cosine of every expert, into the configuration.

    Nothing where findings are no phrases, ``regularisation.unfamiliar`` is 0, or no expert has features beside words of
    its own. Where several processes share the work, each has to call it.
    """
    share, model, ids = ctx.recipe.regularisation.unfamiliar, ctx.model, _phrase_ids(ctx)
    if ids is None or not share:
        return
    twofold = [name for name, adapter in model.alignment.adapters.items() if _two_ways(adapter)]
    if not _taught(ctx) or not twofold:
        return
    _configure(ctx, ids)
    if not ctx.whole_words[0].words:  # a few texts that all say the same tell nothing apart
        return
    seen = _seen(ctx, report)
    numbers = {name: model.experts.names.index(name) for name in twofold}
    usual = {name: found for name, number in numbers.items() if (found := seen.usual(number)) is not None}
    model.config.phrase_ids = {**model.config.phrase_ids, "usual": usual}
    if usual:
        known = model.model.known_words()
        assert known is not None
        near_NK = known.nearness(seen.cosine, seen.expert, seen.places, seen.read)
        least = {name: float(near_NK[seen.right_of(numbers[name])].quantile(share)) for name in usual}
        model.config.phrase_ids = {**model.config.phrase_ids, "least": least}
        report.say(
            ", ".join(f"{name} {value:.2f}" for name, value in least.items())
            + ": least nearness of what is familiar, in deviations"
        )
    elif not ids.spelled:
        model.config.phrase_ids = with_known(ids, (), {}).model_dump(mode="json")


def _taught(ctx: TrainingContext) -> bool:
    """Whether features are brought to the words of captions."""
    return bool(ctx.recipe.align.steps and ctx.recipe.align.losses.weights.get("caption_words"))


def _phrase_ids(ctx: TrainingContext) -> PhraseIds | None:
    """The phrases that a model's findings are; None where they are none."""
    phrases = ctx.recipe.model.findings == "phrases"
    return PhraseIds.model_validate(ctx.model.config.phrase_ids) if phrases else None


def _configure(ctx: TrainingContext, ids: PhraseIds) -> None:
    """Write the words of the training data into the configuration, and no threshold."""
    words = ctx.whole_words[0].words
    known = [inside_a_sentence(word, ctx.tokenizer) for word in words]
    # As an answer begins, which is what the expert's own names are written with, too.
    spelling = [name_ids(word, ctx.tokenizer, MOST_PIECES, first=True) for word in words] if ids.spelled else ()
    ctx.model.config.phrase_ids = with_known(ids, known, {}, spelling).model_dump(mode="json")


def _two_ways(adapter: Any) -> bool:
    """Whether an adapter writes features, and the expert's own words for the same finding."""
    return any(adapter.features) and max(adapter.phrase) > 0


@dataclass(frozen=True)
class Seen:
    """The features read in N training pictures, K tokens each. cosine: (N, K) with the nearest word. right: (N, K),
    whether a text of the picture has that word. read: (N, K), tokens that are there. places: (N, K, 2). expert: (K,),
    whose tokens they are."""

    cosine: Tensor
    right: Tensor
    read: Tensor
    places: Tensor
    expert: Tensor

    def right_of(self, expert: int) -> Tensor:
        """The tokens (N, K) of an expert that are named rightly."""
        return self.right & self.read & (self.expert == expert)

    def usual(self, expert: int) -> tuple[float, float] | None:
        """Mean and deviation of the cosines of an expert's tokens that are named rightly; None where these are too few
        to know."""
        named = self.cosine[self.right_of(expert)]
        if len(named) < FEWEST or not (deviation := float(named.std())):
            return None
        return float(named.mean()), deviation


def _seen(ctx: TrainingContext, report: Reporter) -> Seen:
    known = ctx.model.model.known_words()
    assert known is not None
    words, parts = ctx.whole_words[0], []
    for start in range(0, PICTURES, BATCH):
        samples = ctx.data.draw(start, BATCH, ctx.recipe.seed, pairs=True)
        matrix = ctx.model.alignment(ctx.encode_trainable(samples, learning=False))
        assert matrix.features is not None
        said_BV = torch.zeros(len(matrix.tokens), len(words.words), dtype=torch.bool, device=matrix.tokens.device)
        for row, texts in enumerate(samples.texts):
            said_BV[row, words.of(texts)] = True
        asked_T = matrix.features
        cosine_BK, word_BK = known.nearest(matrix.tokens[:, asked_T])
        parts.append(
            (cosine_BK.float(), said_BV.gather(1, word_BK), matrix.valid[:, asked_T], matrix.places[:, asked_T])
        )
        report.track("what is familiar", start + BATCH, PICTURES)
    cosine, right, read, places = (torch.cat(each) for each in zip(*parts, strict=True))
    return Seen(cosine, right, read, places, matrix.expert[asked_T])
