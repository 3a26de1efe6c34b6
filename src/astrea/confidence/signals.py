"""What can be seen of an answer without knowing the truth: what its probability of being right is computed from.

Letters: B answers, N pictures, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from astrea.confidence.familiarity import Familiar
from astrea.experts.protocol import ExpertFeatures
from astrea.fusion.reliability import select_reliable
from astrea.language.new_words import falls_apart, words_of

if TYPE_CHECKING:
    from astrea.model.modeling import AstreaForConditionalGeneration

REFUSALS = frozenset(
    {"none", "cannot tell", "can't tell", "can not tell", "unanswerable", "unknown", "not enough information"}
)
"""Answers that say there is none; "unanswerable" is VizWiz's."""

SIGNS = ("likelihood", "familiar", "strange", "disbelieved", "unknown")


@dataclass(frozen=True, slots=True)
class Signs:
    """Signs of B answers.

    refused: (B,) whether the answer says that there is none. likelihood: (B,) its log-probability. strange: (B, E) how
    far each expert's features are beyond the usual (`Familiar.strangeness`). reliable: (B, E). unknown: (B,) share of
    the question's words that the tokenizer does not know.
    """

    refused: Tensor
    likelihood: Tensor
    strange: Tensor
    reliable: Tensor
    unknown: Tensor

    def numbers(self) -> Tensor:
        """(B, len(SIGNS)) what the probability of being right is computed from."""
        strangest = self.strange.amax(1) if self.strange.shape[1] else torch.zeros_like(self.likelihood)
        return torch.stack(
            [
                # Of near certain answers it still matters how near: the logarithm of what is missing to 1.
                -(1 - self.likelihood.clamp_max(0).exp()).clamp_min(1e-6).log(),
                strangest.clamp(-3, 0),
                strangest.clamp(0, 1),
                1 - self.reliable.float().mean(1),
                self.unknown,
            ],
            1,
        )


@torch.no_grad()
def reliable_experts(
    model: AstreaForConditionalGeneration, features: Mapping[str, ExpertFeatures], present_NE: Tensor
) -> Tensor:
    """(N, E) bool, which experts are believed about each picture: those that are there, where the model has nothing to
    judge them by."""
    heard_NE = model.model.believed(features, present_NE)
    assert heard_NE is not None  # some were given
    trust = getattr(model.fusion, "trust", None)
    if trust is None:
        return heard_NE
    matrix = model.with_words(model.alignment(features, heard_NE))
    # The head says nothing of absent experts.
    return select_reliable(trust, matrix, model.fusion.trained(matrix)) & (heard_NE | ~present_NE)  # type: ignore[operator]


def refuses(answer: str) -> bool:
    """Whether an answer says that there is none."""
    return " ".join(answer.lower().rstrip(". ").split()) in REFUSALS


def strangeness(familiar: Mapping[str, Familiar], features: Mapping[str, ExpertFeatures]) -> Tensor:
    """(N, E) how strange the pictures are to each expert that has been measured, in the order of ``features``."""
    found = [familiar[name].strangeness(part) for name, part in features.items() if name in familiar]
    count = len(next(iter(features.values())).tokens)
    return torch.stack(found, 1) if found else torch.zeros(count, 0)


def unknown_words(question: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The words of a question that a tokenizer has no piece for, or only their letters; each once, in order."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = question.split() if backend is None or backend.pre_tokenizer is None else words_of(question, backend)
    letters = backend is not None and "WordPiece" in repr(backend.model)
    found = []
    for word in words:
        parts = tokenizer.tokenize(word)
        spelt = letters and falls_apart(parts) and not word.isdigit()
        if word.strip() and (spelt or tokenizer.unk_token in parts):
            found.append(word.strip())
    return list(dict.fromkeys(found))


def unknown_share(question: str, tokenizer: PreTrainedTokenizerBase) -> float:
    """Share of a question's words that the tokenizer does not know."""
    return min(1.0, len(unknown_words(question, tokenizer)) / max(1, len(question.split())))


def joined_signs(parts: Sequence[Signs]) -> Signs:
    """Signs of several groups of answers, one after another."""
    return Signs(*(torch.cat([getattr(part, name) for part in parts]) for name in Signs.__dataclass_fields__))
