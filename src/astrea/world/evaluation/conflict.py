"""The conflict set: questions about which two experts' readings disagree.

Letters: N pictures, T tokens of one expert, W words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from astrea.experts.protocol import ExpertFeatures
from astrea.world.evaluation.tasks import VqaItem
from astrea.world.scenes.phrases import NOUN
from astrea.world.scenes.questions import tokens
from astrea.world.scenes.vocabulary import COLOURS, KINDS

ASSERTS, DENIES = 0.6, 0.2
"""An expert says a word when some slot believes in it at least so much, and contradicts when none does more."""

WORDS: tuple[str, ...] = (*(kind.name for kind in KINDS), *COLOURS, *NOUN)
"""What experts can disagree about."""

_SINGULAR = {kind.plural: kind.name for kind in KINDS}


def beliefs(part: ExpertFeatures, labels: Sequence[str | None], words: Sequence[str]) -> Tensor:
    """How much an expert's surest slot believes in each word (N, W), 0..1; NaN where it has no such word."""
    found_NW = torch.full((len(part.tokens), len(words)), torch.nan)
    known = [(column, labels.index(word)) for column, word in enumerate(words) if word in labels]
    for column, channel in known:
        found_NW[:, column] = (part.tokens[..., channel] * (part.confidence > 0)).amax(1)
    return found_NW


def disagreed(features: Mapping[str, ExpertFeatures], labels: Mapping[str, Sequence[str | None]]) -> Tensor:
    """Which of `WORDS` one expert says and another contradicts: (N, W) bool."""
    each_ENW = torch.stack([beliefs(part, labels[name], WORDS) for name, part in features.items()])
    # Comparisons with NaN are false: who has no such word takes no side.
    return (each_ENW >= ASSERTS).any(0) & (each_ENW <= DENIES).any(0)


def conflict_items(
    items: Sequence[VqaItem], features: Mapping[str, ExpertFeatures], labels: Mapping[str, Sequence[str | None]]
) -> np.ndarray:
    """Which questions ask, or are to be answered by, a word that two experts disagree about in that picture: (N,) bool.

    Args:
        features: of the pictures that the items number. labels: of each expert's channels.
    """
    split_NW = disagreed(features, labels).numpy()
    column = {word: index for index, word in enumerate(WORDS)}
    found = []
    for item in items:
        said = tokens(" ".join([item.question.text, item.question.answer]))
        asked = {_SINGULAR.get(word, word) for word in said} & column.keys()
        found.append(any(split_NW[item.scene, column[word]] for word in asked))
    return np.array(found, dtype=bool)
