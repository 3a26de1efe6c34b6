"""Experts that declare phrases, what they found in two pictures, and models around a small checkpoint that read it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from astrea.alignment.matrix import ExpertMatrix
from astrea.experts.protocol import Expert, ExpertFeatures, Reading

THINGS = ("cat", "dog", "red umbrella")


class Quiet(Expert):
    """An expert whose features most tests write by hand."""

    def forward(self, pixels_B3HW: Tensor) -> ExpertFeatures:
        """Something that differs from picture to picture, for runs that look at some."""
        light_B11 = pixels_B3HW.mean((1, 2, 3)).view(-1, 1, 1)
        channels = torch.linspace(0, 1, self.num_tokens * self.width).view(self.num_tokens, self.width)
        return ExpertFeatures((light_B11 + channels) % 1, light_B11[..., 0].expand(-1, self.num_tokens))

    def readings(self, pixels_B3HW: Tensor) -> list[Reading]:
        return [Reading("quiet") for _ in pixels_B3HW]


class Seer(Quiet):
    """Things and where they are, known in two ways; two channels stand in no phrase."""

    num_tokens = 3
    width = 14
    labels = (*[None] * 5, *THINGS, "top", "bottom", "left", "right", None, "sure")
    slots = {"feature": (0, 5), "thing": (5, 8), "vertical": (8, 10), "horizontal": (10, 12)}
    phrases = ("{feature} {vertical} {horizontal};", "{thing} {vertical} {horizontal};")


class Writer(Seer):
    """The same, its own words written out."""

    phrases = ("{feature} {vertical} {horizontal};", "{thing:name} {vertical} {horizontal};")


class Speller(Seer):
    """The same, its features written as the word that they are nearest to."""

    phrases = ("{feature:name} {vertical} {horizontal};", "{thing:name} {vertical} {horizontal};")


class Counter(Seer):
    """The same, each word behind it followed by how many findings with it there were."""

    phrases = ("{feature:name} {feature:count} {vertical} {horizontal};", "{thing:name} {vertical} {horizontal};")


class Signs(Quiet):
    """Words that stand in the picture."""

    num_tokens = 2
    width = 6
    labels = (*[None] * 4, "top", "bottom")
    slots = {"text": (0, 4), "vertical": (4, 6)}
    phrases = ('it says "{text}" {vertical}.',)

    def use_tokenizer(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer


class Lines(Quiet):
    """Features that no phrase was declared for."""

    num_tokens = 2
    width = 4
    labels = (None,) * 4

    def __init__(self, *, count: int = 2) -> None:
        super().__init__()
        self.num_tokens = count


EXPERTS = {
    "things": {"kind": f"{__name__}:Seer"},
    "signs": {"kind": f"{__name__}:Signs"},
    "lines": {"kind": f"{__name__}:Lines"},
}


def seen(tokenizer: Any, *, seed: int = 0) -> dict[str, ExpertFeatures]:
    """Two pictures: a cat top left and a red umbrella bottom right, with a sign; and a dog top right without any."""
    generator = torch.Generator().manual_seed(seed)
    things = torch.rand(2, 3, Seer.width, generator=generator)
    things[..., 5:12] = 0
    places = torch.full((2, 3, 2), float("nan"))
    sure = torch.zeros(2, 3)
    for picture, slot, thing, right, low in ((0, 0, 0, 0, 0), (0, 2, 2, 1, 1), (1, 1, 1, 1, 0)):
        things[picture, slot, [5 + thing, 8 + low, 10 + right]] = torch.tensor([0.7, 1.0, 1.0])
        things[picture, slot, 5 + (thing + 1) % 3] = 0.2
        places[picture, slot] = torch.tensor([0.25 + 0.5 * right, 0.25 + 0.5 * low])
        sure[picture, slot] = 0.9
    signs = torch.full((2, 2, Signs.width), -1.0)
    ids = tokenizer("stop", add_special_tokens=False).input_ids[:4]
    signs[0, 0] = torch.tensor([*ids, *[-1] * (4 - len(ids)), 1, 0])
    read = torch.zeros(2, 2)
    read[0, 0] = 0.8
    lines = torch.rand(2, 2, Lines.width, generator=generator)
    return {
        "things": ExpertFeatures(things, sure, places),
        "signs": ExpertFeatures(signs, read),
        "lines": ExpertFeatures(lines, torch.tensor([[1.0, 0.0], [1.0, 1.0]])),
    }


def phrase_matrix(
    expert: list[int], features: list[bool], phrase: list[int], *, place: float = math.nan
) -> ExpertMatrix:
    """The tokens of one picture: of each its expert, whether it is made of features, and which phrase it is of."""
    count = len(expert)
    return ExpertMatrix(
        tokens=torch.zeros(1, count, 4),
        confidence=torch.ones(1, count),
        valid=torch.ones(1, count, dtype=torch.bool),
        present=torch.ones(1, max(expert) + 1, dtype=torch.bool),
        expert=torch.tensor(expert),
        places=torch.full((1, count, 2), place),
        ids=torch.full((1, count), -1),
        features=torch.tensor(features),
        phrase=torch.tensor(phrase),
    )
