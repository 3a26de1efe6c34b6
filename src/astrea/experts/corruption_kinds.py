"""Ways in which an expert can be wrong while it is as sure as ever, for training and testing who notices.

Each works on what every expert declares: its tokens, places and the names of its channels. Nothing here knows any one
expert. A way that an expert has no channels for leaves it as it is (`applies`).

Letters: B pictures, T tokens of one expert, C channels of its tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from astrea.experts.corruption import frozen, of_the_next, stuck, where
from astrea.experts.protocol import ORDINALS, PLACE_WORDS, ExpertFeatures

COLOUR_WORDS = frozenset(
    (
        *("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray", "grey"),
        *("cyan", "teal", "magenta", "violet", "gold", "silver", "beige", "navy", "maroon", "turquoise", "lime"),
    )
)
NOISE = 1.0
"""Strength of `noise`, in standard deviations of a channel over the batch."""

Labels = Sequence[str | None]


@dataclass(frozen=True, slots=True)
class Channels:
    """What an expert's channels say, by their names.

    colours, names: channels of colours, and of classes (the longest run of words that are neither colours, numbers nor
    places). across: channels of places from left to right, in order. sides: the channels "left" and "right", or ().
    """

    colours: tuple[int, ...]
    names: tuple[int, ...]
    across: tuple[int, ...]
    sides: tuple[int, ...]


def channels_of(labels: Labels) -> Channels:
    """Sort channels by the names that an expert declares."""
    places = {*PLACE_WORDS, *ORDINALS}
    colours = tuple(i for i, label in enumerate(labels) if label in COLOUR_WORDS)
    words = [
        i
        for i, label in enumerate(labels)
        if label and i not in colours and label not in places and not re.search(r"\d", label)
    ]
    cuts = [0, *(at for at, (one, two) in enumerate(pairwise(words), 1) if two != one + 1), len(words)]
    start, stop = max(pairwise(cuts), key=lambda run: run[1] - run[0])
    across = tuple(i for i, label in enumerate(labels) if label and re.fullmatch(r"x\d+", label))
    sides = tuple(labels.index(side) for side in ("left", "right") if side in labels)
    return Channels(colours, tuple(words[start:stop]), across, sides if len(sides) == 2 else ())


Kind = Callable[[ExpertFeatures, Channels, torch.Generator], ExpertFeatures]


def swapped(part: ExpertFeatures, channels: Channels, generator: torch.Generator) -> ExpertFeatures:
    """What it saw in the picture before."""
    return of_the_next(part)


def late(part: ExpertFeatures, channels: Channels, generator: torch.Generator) -> ExpertFeatures:
    """What it saw several pictures ago."""
    return part.map(lambda values: values.roll(max(1, len(values) // 3), 0))


def half_swapped(part: ExpertFeatures, channels: Channels, generator: torch.Generator) -> ExpertFeatures:
    """In a random half of its slots, what it saw in the picture before."""
    mine_BT = torch.rand(part.confidence.shape, generator=generator).to(part.confidence.device) < 0.5
    other = of_the_next(part)
    places = part.places
    if places is not None and other.places is not None:
        places = torch.where(mine_BT.unsqueeze(-1), other.places, places)
    tokens = torch.where(mine_BT.unsqueeze(-1), other.tokens, part.tokens)
    return ExpertFeatures(tokens, torch.where(mine_BT, other.confidence, part.confidence), places)


def stuck_slots(part: ExpertFeatures, channels: Channels, generator: torch.Generator) -> ExpertFeatures:
    """In every slot, what its surest slot says."""
    return stuck(part)


def stuck_picture(part: ExpertFeatures, channels: Channels, generator: torch.Generator) -> ExpertFeatures:
    """Of every picture, what it saw in one."""
    return frozen(part)


def wrong_class(part: ExpertFeatures, channels: Channels, generator: torch.Generator) -> ExpertFeatures:
    """Every class is called by another's name, the same within a picture."""
    return _renamed(part, channels.names, generator)


def wrong_colour(part: ExpertFeatures, channels: Channels, generator: torch.Generator) -> ExpertFeatures:
    """Every colour is called by another's name, the same within a picture."""
    return _renamed(part, channels.colours, generator)


def mirrored(part: ExpertFeatures, channels: Channels, generator: torch.Generator) -> ExpertFeatures:
    """Left is right."""
    order = torch.arange(part.tokens.shape[-1])
    for group in (channels.across, channels.sides):
        order[list(group)] = order[list(reversed(group))]
    places = part.places
    if places is not None:
        places = torch.stack([1 - places[..., 0], places[..., 1]], -1)
    return replace(part, tokens=part.tokens[..., order.to(part.tokens.device)], places=places)


def noise(part: ExpertFeatures, channels: Channels, generator: torch.Generator) -> ExpertFeatures:
    """Noise on every channel, as strong as the channel itself varies over filled slots of the batch."""
    filled = part.tokens[part.confidence > 0]
    spread_C = filled.std(0, unbiased=False) if len(filled) else part.tokens.new_zeros(part.tokens.shape[-1])
    drawn = torch.randn(part.tokens.shape, generator=generator).to(part.tokens)
    return replace(part, tokens=part.tokens + NOISE * spread_C * drawn)


FUNCTIONS: Mapping[str, Kind] = {
    "swapped": swapped,
    "late": late,
    "half_swapped": half_swapped,
    "stuck_slots": stuck_slots,
    "stuck_picture": stuck_picture,
    "wrong_class": wrong_class,
    "wrong_colour": wrong_colour,
    "mirrored": mirrored,
    "noise": noise,
}
"""By the names of `astrea.experts.corruption_names.KINDS`."""


def applies(kind: str, part: ExpertFeatures, channels: Channels) -> bool:
    """Whether an expert has what this kind changes."""
    needs = {"wrong_class": channels.names, "wrong_colour": channels.colours}
    if kind in needs:
        return len(needs[kind]) > 1
    return kind != "mirrored" or part.places is not None or bool(channels.across or channels.sides)


def corrupt_by_kind(
    features: Mapping[str, ExpertFeatures],
    labels: Mapping[str, Labels],
    expert_B: Tensor,
    kinds: Sequence[str],
    generator: torch.Generator,
) -> tuple[dict[str, ExpertFeatures], Tensor]:
    """The features, with one expert of some pictures corrupted, in a kind that is drawn for each picture among those
    that apply to the expert.

    Args:
        labels: of each expert's channels. expert_B: which expert, -1 = none (`astrea.experts.corruption.draw_experts`).

    Returns:
        The features, and which expert (B,) was corrupted: -1 also where no kind applies to it.
    """
    found, done_B = {}, torch.full_like(expert_B, -1)
    drawn_B = torch.rand(len(expert_B), generator=generator)
    for index, (name, part) in enumerate(features.items()):
        channels = channels_of(labels[name])
        possible = [kind for kind in kinds if applies(kind, part, channels)]
        changed = part
        for number, kind in enumerate(possible):
            mine_B = (expert_B == index) & ((drawn_B * len(possible)).long() == number)
            changed = where(mine_B, FUNCTIONS[kind](part, channels, generator), changed)
            done_B[mine_B] = index
        found[name] = changed
    return found, done_B


def _renamed(part: ExpertFeatures, group: tuple[int, ...], generator: torch.Generator) -> ExpertFeatures:
    """The channels of a group shifted round, by as many places as are drawn for each picture."""
    count = len(group)
    by_B = torch.randint(1, count, (len(part.tokens),), generator=generator)
    source_BG = torch.tensor(group)[(torch.arange(count) + by_B.unsqueeze(1)) % count].to(part.tokens.device)
    tokens = part.tokens.clone()
    index_BTG = source_BG.unsqueeze(1).expand(-1, part.tokens.shape[1], -1)
    tokens[..., list(group)] = part.tokens.gather(2, index_BTG)
    return replace(part, tokens=tokens)
