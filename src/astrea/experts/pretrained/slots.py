"""How checkpoint experts spell what they see: named channels first, the network's own hidden state after them.

Coordinates use the same words as the compact experts' and mean the same by them: ``x3`` is the same place and ``wide3``
the same width, only that here they go on to the whole picture.

Letters: B batch, T slots, K classes, H hidden width, C channels of a token, G cells of a grid, h w a map's sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Formatter

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.experts.protocol import (
    ORDINALS,
    PLACE_WORDS,
    ExpertFeatures,
    bin_labels,
    in_order,
    left_to_right,
    place_words,
    ranks,
    soft_bins,
)

Labels = tuple[str | None, ...]

PLACE_BINS = 16
SPAN_BINS = 15
"""Half a picture is seven steps, as in the compact detector; a whole one is fourteen."""
AREA_BINS = 33
AREA_MAX = 0.12 * (32 / 11) ** 2
"""The compact segmenter's twelve steps end at 0.12 of the picture; 33 of the same go past the whole of it."""
MOST_LETTERS = 64
RANKS = (
    *ORDINALS,
    *("ninth", "tenth", "eleventh", "twelfth", "thirteenth", "fourteenth"),
    *("fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth", "twentieth"),
)


def rank_labels(tokens: int) -> Labels:
    """One name per rank; ranks beyond the twentieth have none."""
    return (*RANKS[:tokens], *(None for _ in range(tokens - len(RANKS))))


def spoken(label: str) -> str | None:
    """A class as one would say it: the first of several synonyms, spaces for underscores; None if it says nothing."""
    said = " ".join(label.split(",")[0].replace("_", " ").split())[:MOST_LETTERS]
    placeholder = said.upper().startswith("LABEL ") and said[6:].isdigit()
    return None if not said or placeholder or said.upper() in ("N/A", "NONE") else said


def class_names(id2label: Mapping[int, str], count: int) -> Labels:
    """What each of ``count`` classes is called."""
    return tuple(spoken(str(id2label.get(index, ""))) for index in range(count))


def called(name: str | None, index: int) -> str:
    """A class in a reading: its name, or its number if it has none."""
    return name if name is not None else f"class {index}"


def even(hidden: Tensor) -> Tensor:
    """Hidden states (..., H) with mean 0 and deviation 1: checkpoints differ in scale by orders of magnitude, and
    beside probabilities the loud ones would drown what has a name."""
    return F.layer_norm(hidden.float(), hidden.shape[-1:])


def box_labels(classes: Labels, kind: str, tokens: int, hidden: int) -> Labels:
    """Channel names of `box_tokens`."""
    return (
        *classes,
        *bin_labels("x", PLACE_BINS),
        *bin_labels("y", PLACE_BINS),
        *bin_labels("wide", SPAN_BINS),
        *bin_labels("high", SPAN_BINS),
        "sure",
        kind,
        *rank_labels(tokens),
        *PLACE_WORDS,
        *([None] * hidden),
    )


def region_labels(classes: Labels, kind: str, tokens: int, hidden: int) -> Labels:
    """Channel names of `region_tokens`."""
    plain = box_labels(classes, kind, tokens, 0)
    return (*plain, *bin_labels("area", AREA_BINS), *([None] * hidden))


PLACED = ("{feature} {vertical} {horizontal} ;", "{thing} {vertical} {horizontal} ;")
"""A finding at its place, by its hidden state and by its class."""


def placed_slots(labels: Labels, classes: Labels, hidden: int) -> dict[str, tuple[int, int]]:
    """The slots of `PLACED` in channels named by `box_labels` or `region_labels`; without a class where none has a
    name."""
    place = len(classes) + labels[len(classes) :].index(PLACE_WORDS[0])
    slots = {
        "thing": (0, len(classes)),
        "horizontal": (place, place + 2),
        "vertical": (place + 2, place + 4),
        "feature": (len(labels) - hidden, len(labels)),
    }
    return slots if any(classes) else {name: at for name, at in slots.items() if name != "thing"}


def with_slots(phrases: tuple[str, ...], slots: Mapping[str, tuple[int, int]]) -> tuple[str, ...]:
    """Those phrases that these slots can fill."""
    return tuple(p for p in phrases if all(field in slots for _, field, _, _ in Formatter().parse(p) if field))


def box_tokens(probability_BTK: Tensor, box_BT4: Tensor, sure_BT: Tensor, hidden_BTH: Tensor) -> ExpertFeatures:
    """Boxes (x0, y0, x1, y1 as shares of the picture), left to right, empty slots last."""
    order_BT = box_order(box_BT4, sure_BT)
    probability_BTK, box_BT4, sure_BT, hidden_BTH = (
        in_order(values, order_BT) for values in (probability_BTK, box_BT4, sure_BT, hidden_BTH)
    )
    centre_BT2 = (box_BT4[..., :2] + box_BT4[..., 2:]) / 2
    tokens_BTC = torch.cat([_named(probability_BTK, centre_BT2, box_BT4, sure_BT), even(hidden_BTH)], -1)
    return ExpertFeatures(tokens_BTC, sure_BT, centre_BT2)


def region_tokens(
    probability_BTK: Tensor,
    centroid_BT2: Tensor,
    box_BT4: Tensor,
    area_BT: Tensor,
    sure_BT: Tensor,
    hidden_BTH: Tensor,
) -> ExpertFeatures:
    """Regions in the order given: the middle of what is visible of them, their extent, their share of the picture."""
    area = soft_bins((area_BT / AREA_MAX).clamp(0, 1).sqrt(), AREA_BINS)
    named_BTC = _named(probability_BTK, centroid_BT2, box_BT4, sure_BT)
    return ExpertFeatures(torch.cat([named_BTC, area, even(hidden_BTH)], -1), sure_BT, centroid_BT2)


def box_order(box_BT4: Tensor, sure_BT: Tensor) -> Tensor:
    """The order (B, T) of slots from left to right, empty ones last."""
    return left_to_right(sure_BT, (box_BT4[..., 0] + box_BT4[..., 2]) / 2)


def _named(probability_BTK: Tensor, centre_BT2: Tensor, box_BT4: Tensor, sure_BT: Tensor) -> Tensor:
    """The channels of `box_labels` without the hidden ones."""
    span_BT2 = box_BT4[..., 2:] - box_BT4[..., :2]
    return torch.cat(
        [
            probability_BTK,
            soft_bins(centre_BT2[..., 0], PLACE_BINS),
            soft_bins(centre_BT2[..., 1], PLACE_BINS),
            soft_bins(span_BT2[..., 0], SPAN_BINS),
            soft_bins(span_BT2[..., 1], SPAN_BINS),
            sure_BT.unsqueeze(-1),
            torch.ones_like(sure_BT).unsqueeze(-1),
            ranks(sure_BT),
            place_words(centre_BT2),
        ],
        -1,
    )


def keep_top(probability_BK: Tensor, count: int) -> Tensor:
    """The ``count`` largest probabilities as they are, 0 for the rest."""
    value, index = probability_BK.topk(min(count, probability_BK.shape[1]), 1)
    return torch.zeros_like(probability_BK).scatter(1, index, value)


def grid_side(cells: int) -> int | None:
    """g where ``cells`` = g x g, otherwise None."""
    side = round(cells**0.5)
    return side if side * side == cells and side > 0 else None


def grid_places(side: int, like: Tensor) -> Tensor:
    """The middles (G, 2), x and y, of a side x side grid, row by row."""
    middle = (torch.arange(side, device=like.device, dtype=torch.float32) + 0.5) / side
    return torch.stack([middle.repeat(side), middle.repeat_interleave(side)], -1)


def word_scores(pieces: Sequence[str], scores: Sequence[float]) -> list[float]:
    """One score per word of a sentence: the least of its pieces.

    Args:
        pieces: the sentence as it read after each piece.
    """
    found: list[float] = []
    for text, score in zip(pieces, scores, strict=True):
        words = len(text.split())
        if words > len(found):
            found.extend([score] * (words - len(found)))
        elif found:
            found[-1] = min(found[-1], score)
    return found
