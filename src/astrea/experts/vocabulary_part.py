"""A part of an expert: the same network, which speaks only of some of its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from astrea.common.errors import AstreaError
from astrea.experts.protocol import ExpertFeatures


def word_channels(only: Sequence[str], vocabulary: Sequence[str | None]) -> list[int]:
    """The channels of these words.

    Raises:
        AstreaError: one is none of the expert's.
    """
    unknown = [word for word in only if word not in vocabulary]
    if unknown:
        raise AstreaError(
            f"only: the expert has no word {unknown[0]!r}", f"its words are {', '.join(filter(None, vocabulary))}"
        )
    return [vocabulary.index(word) for word in only]


def speaking_of(features: ExpertFeatures, channels: Sequence[int], count: int) -> ExpertFeatures:
    """The same with every slot emptied that speaks mostly of something else.

    Args:
        channels: of the words that are kept; none = all. count: how many of the first channels are words.
    """
    if not channels:
        return features
    said_BT = features.tokens[..., :count].argmax(-1)
    kept_BT = torch.isin(said_BT, torch.tensor(list(channels), device=said_BT.device))
    return replace(features, confidence=features.confidence * kept_BT)
