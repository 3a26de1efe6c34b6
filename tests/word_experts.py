"""Three experts that tell names and colours of two things in each picture, nearly without a fault."""

from __future__ import annotations

import torch

from astrea.experts.protocol import ORDINALS, ExpertFeatures

NAMES, COLOURS = ("cat", "dog", "cow", "hen", "pig", "fox"), ("red", "blue", "green", "black")
LABELS = {
    "boxes": (*NAMES, *COLOURS, "left", "right", *ORDINALS[:2], "sure", "boxes"),
    "tags": (*NAMES, *COLOURS, "sure", "tags"),
    "words": ("end", *NAMES, *COLOURS, None),
}


def seen(count: int, seed: int) -> dict[str, ExpertFeatures]:
    """Two things in each picture, of which every expert tells names and colours, nearly without a fault."""
    generator = torch.Generator().manual_seed(seed)
    name = torch.eye(6)[torch.randint(6, (count, 2), generator=generator)]
    colour = torch.eye(4)[torch.randint(4, (count, 2), generator=generator)]
    places = torch.rand(count, 2, 2, generator=generator).sort(1).values
    sides = torch.stack([1 - places[..., 0], places[..., 0]], -1)
    one = torch.ones(count, 2, 1)
    rank = torch.eye(2).expand(count, -1, -1)
    parts = {
        "boxes": torch.cat([name, colour, sides, rank, one, one], -1),
        "tags": torch.cat([name, colour, one, one], -1),
        "words": torch.cat([0 * one, name, colour, torch.rand(count, 2, 1, generator=generator)], -1),
    }
    found = {}
    for expert, tokens in parts.items():
        tokens = (tokens + 0.1 * torch.rand(tokens.shape, generator=generator)).clamp_max(1)
        found[expert] = ExpertFeatures(tokens, torch.ones(count, 2), places if expert == "boxes" else None)
    return found
