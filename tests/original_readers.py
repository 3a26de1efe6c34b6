"""A model of which one expert reads pictures as they are, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F

from astrea import AstreaForConditionalGeneration, AstreaProcessor
from astrea.model.loaded import LoadedModel
from astrea.model.processing import AstreaImageProcessor


@contextmanager
def reading_originals(
    model: AstreaForConditionalGeneration, processor: AstreaProcessor, name: str = "detection"
) -> Iterator[tuple[LoadedModel, list[list[tuple[int, ...]]]]]:
    """While open, an expert of the model reads pictures as they are, stretched over its square: in a picture that is no
    square it sees something else than in one that was fitted into the square. Gives the model with a processor for it,
    and a list that gets the shapes of what the expert is given, call by call."""
    kind = type(model.experts[name])
    forward, readings = kind.forward, kind.readings
    given: list[list[tuple[int, ...]]] = []

    def stretched(pictures):
        given.append([tuple(one.shape) for one in pictures])
        return torch.cat([F.interpolate(one[None], (64, 64)) for one in pictures])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "picture", "original")
        patch.setattr(kind, "forward", lambda self, pictures: forward(self, stretched(pictures)))
        patch.setattr(kind, "readings", lambda self, pictures: readings(self, stretched(pictures)))
        whole = AstreaProcessor(
            AstreaImageProcessor(model.config.image_size, originals=model.experts.wants_originals),
            processor.tokenizer,
            processor.num_visual_tokens,
        )
        yield LoadedModel(model, whole), given
