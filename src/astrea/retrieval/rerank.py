"""A shortlist of pictures, ordered by how likely the language model holds the text in front of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.evaluation.generate import Predictor
from astrea.experts.protocol import ExpertFeatures
from astrea.model.processing import AstreaProcessor

SHORTLIST = 32
"""How many pictures the vectors choose for the language model to order."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One picture and how well it fits; more is better.

    score: mean log-likelihood per token of the text (nats), or the cosine of the vectors where nothing was reranked.
    """

    path: Path
    score: float


def check_text(processor: AstreaProcessor, text: str) -> None:
    """Whether a text can be searched for.

    Raises:
        AstreaError: it is empty or too long, or asks for pictures of its own.
    """
    if not text.strip():
        raise AstreaError("the text is empty", "say what the picture should show")
    processor(text=text)


def per_token_likelihood(predictor: Predictor, features: dict[str, ExpertFeatures], text: str) -> Tensor:
    """log p(text | picture) per token of the text, in nats, for every picture that ``features`` are of: (N,)."""
    count = len(next(iter(features.values())).tokens)
    likelihood = torch.cat(predictor.likelihood(features, [[0]] * count, [text]))
    return likelihood / (len(predictor.packer.ids(text)) + 1)
