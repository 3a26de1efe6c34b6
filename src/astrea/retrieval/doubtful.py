"""Which of the pictures found are not to be trusted: something is always the nearest, however far it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from astrea.confidence.signals import strangeness, unknown_words
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor
from astrea.retrieval.pictures import encode_files
from astrea.retrieval.rerank import Hit

UNLIKE = "unlike what I was trained on"


def doubts_about_text(processor: AstreaProcessor, text: str) -> tuple[str, ...]:
    """What speaks against any find for this text: words that the model does not know."""
    words = unknown_words(text, processor.tokenizer)
    known = f"I do not know the {'word' if len(words) == 1 else 'words'} {', '.join(map(repr, words))}"
    return (known,) if words else ()


@torch.inference_mode()
def doubts_about_pictures(model: AstreaForConditionalGeneration, hits: Sequence[Hit]) -> list[str | None]:
    """For each picture found what speaks against it, None where nothing does: that it is unlike those of training (if
    the model's folder says what those are like), or cannot be read any more."""
    familiar = {} if model.confidence_estimator is None else model.confidence_estimator.familiar
    if not familiar:  # nothing to compare with, so no picture has to be opened
        return [None] * len(hits)
    unread: dict[Path, str] = {}
    readable, features = encode_files(
        model, [hit.path for hit in hits], unreadable=lambda path, error: unread.update({path: error.message})
    )
    found = [unread.get(hit.path) for hit in hits]
    far = (strangeness(familiar, features) > 0).any(1).tolist() if readable else []
    for place, unlike in zip(readable, far, strict=True):
        found[place] = UNLIKE if unlike else None
    return found


def trusted_first(model: AstreaForConditionalGeneration, hits: Sequence[Hit], top: int) -> list[tuple[Hit, str | None]]:
    """The ``top`` hits with what speaks against each: those that nothing speaks against first, in their order. How well
    a text fits a picture unlike all of training means nothing, however well it is."""
    doubts = doubts_about_pictures(model, hits)
    return sorted(zip(hits, doubts, strict=True), key=lambda found: found[1] is not None)[:top]
