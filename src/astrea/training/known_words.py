"""What a model knows of what it is taught: the words, from the beginning where findings are written with them, and how
near to them features are, which the finished run leaves behind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from astrea.alignment.known_words import threshold, with_known
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
    cosine_N, right_N, expert_N = _seen(ctx, report)
    least = {
        name: threshold(cosine_N[expert_N == index], right_N[expert_N == index], share, FEWEST)
        for index, name in enumerate(model.experts.names)
        if name in twofold
    }
    least = {name: value for name, value in least.items() if value > -1}
    if least:
        model.config.phrase_ids = {**model.config.phrase_ids, "least": least}
        report.say(
            ", ".join(f"{name} {value:.2f}" for name, value in least.items()) + ": least cosine of what is familiar"
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


def _seen(ctx: TrainingContext, report: Reporter) -> tuple[Tensor, Tensor, Tensor]:
    """Of every feature read in some training pictures: its cosine with the nearest word, whether a text of its picture
    has that word, and the number of its expert."""
    known = ctx.model.model.known_words()
    assert known is not None
    words, parts = ctx.whole_words[0], []
    for start in range(0, PICTURES, BATCH):
        samples = ctx.data.draw(start, BATCH, ctx.recipe.seed, pairs=True)
        matrix = ctx.model.alignment(ctx.encode_trainable(samples, learning=False))
        said_BV = torch.zeros(len(matrix.tokens), len(words.words), dtype=torch.bool, device=matrix.tokens.device)
        for row, texts in enumerate(samples.texts):
            said_BV[row, words.of(texts)] = True
        read_BT = matrix.valid & matrix.features
        cosine_BT, word_BT = known.nearest(matrix.tokens)
        owner_BT = matrix.expert.expand_as(word_BT)
        parts.append((cosine_BT[read_BT], said_BV.gather(1, word_BT)[read_BT], owner_BT[read_BT]))
        report.track("what is familiar", start + BATCH, PICTURES)
    cosine_N, right_N, expert_N = (torch.cat(each) for each in zip(*parts, strict=True))
    return cosine_N, right_N, expert_N
