"""Looking for text in a large picture part by part: where the parts (tiles) lie, and one map put together from theirs.

Neighbouring tiles overlap, and each is believed up to the middle of what both show, where neither is near an edge that
cuts through letters. So a line that runs through several tiles is one line on the map.

Letters: H W picture height and width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from torch import Tensor

OVERLAP = 64
"""Pixels that two neighbouring tiles both show, at least."""
SMALLER = 0.95
"""A picture that takes too many tiles is made smaller by this until it does not."""


class Span(NamedTuple):
    """A tile along one side of a picture, in pixels: ``start`` to ``stop`` is shown, ``first`` to ``last`` believed."""

    start: int
    stop: int
    first: int
    last: int


def spans(length: int, side: int) -> list[Span]:
    """The fewest tiles of ``side`` pixels along a side of a picture, evenly spread; or one that is shorter."""
    if length <= side:
        return [Span(0, length, 0, length)]
    count = math.ceil((length - OVERLAP) / (side - OVERLAP))
    starts = [round(number * (length - side) / (count - 1)) for number in range(count)]
    edges = [0, *((one + side + two) // 2 for one, two in pairwise(starts)), length]
    return [Span(start, start + side, *kept) for start, kept in zip(starts, pairwise(edges), strict=True)]


def tiled_factor(width: int, height: int, side: int, most: int) -> float | None:
    """How large a picture is looked at in tiles: 1 = as it is, less where that takes more than ``most`` tiles. None
    where they would show no more than the whole picture does in one look of ``side`` pixels."""
    factor, longest = 1.0, max(width, height)
    while most > 1 and longest * factor > side:
        if len(spans(round(width * factor), side)) * len(spans(round(height * factor), side)) <= most:
            return factor
        factor *= SMALLER
    return None


def put_together(pixels_3HW: Tensor, side: int, likely: Callable[[Tensor], np.ndarray]) -> np.ndarray:
    """The map (H, W) of a picture, from those of its tiles: ``likely`` gives one a cell for each of its pixels."""
    whole = np.zeros(pixels_3HW.shape[1:], np.float32)
    for row in spans(whole.shape[0], side):
        for column in spans(whole.shape[1], side):
            part = likely(pixels_3HW[:, row.start : row.stop, column.start : column.stop])
            whole[row.first : row.last, column.first : column.last] = part[
                row.first - row.start : row.last - row.start, column.first - column.start : column.last - column.start
            ]
    return whole
