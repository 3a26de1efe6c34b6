"""From a map of how likely there is text to straight lines of it, and from a line to the picture of its letters.

The map is that of a Differentiable Binarization network (arXiv 1911.08947), whose regions are shrunk lines. Everything
here is bounded by the map's size, whatever it shows.

Letters: h w sides of the map in cells, R runs of cells in a row, L lines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LIKELY = 0.3
"""A cell that is likelier than this belongs to a line."""
LEAST_SCORE = 0.5
"""The mean over a line's cells below which it is none."""
LEAST_CELLS, LEAST_SIDE = 8, 3.0
MOST_REGIONS = 200
UNSHRUNK = 1.6
"""A region is grown by its area times this, over its perimeter."""
TALL = 1.5
"""A line so many times as high as it is wide is read from top to bottom."""
COARSE, FINE = 2.0, 0.25
"""Steps in which the slope of a line is sought, in degrees."""


class Line(NamedTuple):
    """A straight line of text: its middle (x, y), the direction in which it is read (a unit vector), half its length
    and half its height, all in cells of the map; score: how sure it is one."""

    middle: tuple[float, float]
    along: tuple[float, float]
    half_length: float
    half_height: float
    score: float

    @property
    def below(self) -> tuple[float, float]:
        """The direction from the top of its letters to their feet."""
        return (-self.along[1], self.along[0])

    def enlarged(self, times: float) -> Line:
        """The same line on a map with so many times as many cells along each side."""
        x, y = self.middle
        return Line((x * times, y * times), self.along, self.half_length * times, self.half_height * times, self.score)

    def holds(self, point: tuple[float, float]) -> bool:
        """Whether a point lies in its rectangle."""
        x, y = point[0] - self.middle[0], point[1] - self.middle[1]
        far, down = (abs(x * axis[0] + y * axis[1]) for axis in (self.along, self.below))
        return far <= self.half_length and down <= self.half_height

    def corners(self) -> np.ndarray:
        """(4, 2), clockwise from where it begins."""
        middle, along, below = (np.array(each) for each in (self.middle, self.along, self.below))
        a, b = along * self.half_length, below * self.half_height
        return np.stack([middle - a - b, middle + a - b, middle + a + b, middle - a + b])


class Runs(NamedTuple):
    """Runs of neighbouring cells: row, first cell, the one behind the last (R,), and a number per connected region."""

    row: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    region: np.ndarray


def find_lines(likely_hw: np.ndarray) -> list[Line]:
    """The lines of a map of probabilities, the largest first."""
    runs = connected(likely_hw > LIKELY)
    if not len(runs.row):
        return []
    sums = np.concatenate([np.zeros((len(likely_hw), 1)), likely_hw.cumsum(1, dtype=np.float64)], 1)
    within = sums[runs.row, runs.stop] - sums[runs.row, runs.start]
    _, region = np.unique(runs.region, return_inverse=True)
    cells = np.bincount(region, runs.stop - runs.start)
    score = np.bincount(region, within) / cells
    wanted = np.flatnonzero((cells >= LEAST_CELLS) & (score >= LEAST_SCORE))
    wanted = wanted[np.argsort(-cells[wanted], kind="stable")][:MOST_REGIONS]
    lines = [line_around(Runs(*(part[region == one] for part in runs)), float(score[one])) for one in wanted]
    return [line for line in lines if line is not None]


def connected(mask_hw: np.ndarray) -> Runs:
    """The runs of a mask; those that touch, corners included, have the same region."""
    padded = np.pad(mask_hw.astype(np.int8), ((0, 0), (1, 1)))
    change = np.diff(padded, axis=1)
    row, start = np.nonzero(change == 1)
    stop = np.nonzero(change == -1)[1]
    stride = mask_hw.shape[1] + 2
    # In the row below, the runs that touch a run are neighbours: from the first that does not end before it begins ...
    first = np.searchsorted(row * stride + stop, (row + 1) * stride + start)
    last = np.searchsorted(row * stride + start, (row + 1) * stride + stop, side="right")
    count = np.maximum(last - first, 0)
    one = np.repeat(np.arange(len(row)), count)
    two = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count) + np.repeat(first, count)
    region = np.arange(len(row))
    while True:  # each round joins neighbours and halves the way to a region's least number
        least = np.minimum(region[one], region[two])
        new = region.copy()
        for ends in (one, two):
            np.minimum.at(new, ends, least)
            np.minimum.at(new, region[ends], least)
        new = new[new]
        if np.array_equal(new, region):
            return Runs(row, start, stop, region)
        region = new


def line_around(runs: Runs, score: float) -> Line | None:
    """The smallest rectangle around a region, grown to the letters' full height; None if it is too thin."""
    heads = np.flatnonzero(np.diff(runs.row, prepend=-1))
    row, start = runs.row[heads], np.minimum.reduceat(runs.start, heads)
    stop = np.maximum.reduceat(runs.stop, heads)
    x, y = np.concatenate([start, stop, start, stop]), np.concatenate([row, row, row + 1, row + 1])
    points = np.stack([x, y], 1).astype(np.float64)
    slope = smallest(points, np.arange(-45, 45, COARSE))
    slope = smallest(points, np.arange(slope - COARSE, slope + COARSE, FINE))
    angle = math.radians(slope)
    along, below = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
    (left, right), (top, bottom) = ((d.min(), d.max()) for d in (points @ along, points @ below))
    width, height = right - left, bottom - top
    if min(width, height) < LEAST_SIDE:
        return None
    grown = width * height * UNSHRUNK / (2 * (width + height))
    middle = along * (left + right) / 2 + below * (top + bottom) / 2
    half = (width / 2 + grown, height / 2 + grown)
    if height >= TALL * width:  # turned by a quarter: it is read downwards
        along, half = below, half[::-1]
    return Line((middle[0], middle[1]), (along[0], along[1]), half[0], half[1], score)


def smallest(points: np.ndarray, degrees: np.ndarray) -> float:
    """The slope, of some, at which a rectangle around points (P, 2) has the smallest area; of equals the flattest."""
    angle = np.radians(degrees)
    along = points @ np.stack([np.cos(angle), np.sin(angle)])
    below = points @ np.stack([-np.sin(angle), np.cos(angle)])
    area = np.ptp(along, 0) * np.ptp(below, 0)
    near = np.flatnonzero(area <= area.min() * (1 + 1e-9))
    return float(degrees[near[np.abs(degrees[near]).argmin()]])


def reading_order(lines: list[Line]) -> list[Line]:
    """From top to bottom, and from left to right where lines stand beside each other."""

    def rows() -> Iterator[list[Line]]:
        row: list[Line] = []
        for line in sorted(lines, key=lambda line: line.middle[1]):
            if row and line.middle[1] - row[0].middle[1] > min(line.half_height, row[0].half_height):
                yield row
                row = []
            row.append(line)
        if row:
            yield row

    return [line for row in rows() for line in sorted(row, key=lambda line: line.middle[0])]


def cut_out(pixels_3HW: Tensor, line: Line, scale: float, height: int, longest: int) -> Tensor:
    """The picture of a line, turned upright: (3, height, its length at that height, at most ``longest``).

    Args:
        scale: pixels of the picture per cell of the map.
    """
    length = max(height // 4, min(longest, round(height * line.half_length / line.half_height)))
    # Where a line is made much smaller, its picture is first: a sample of every fourth pixel is no letter.
    shrunk = max(0, math.floor(math.log2(max(1.0, 2 * line.half_height * scale / height))))
    source = pixels_3HW.unsqueeze(0)
    if shrunk:
        source = F.avg_pool2d(source, 2**shrunk, ceil_mode=True)
    across = torch.linspace(-1, 1, length) * (1 - 1 / length) * line.half_length
    down = torch.linspace(-1, 1, height) * (1 - 1 / height) * line.half_height
    along, below, middle = (torch.tensor(each, dtype=torch.float32) for each in (line.along, line.below, line.middle))
    at = middle + across[None, :, None] * along + down[:, None, None] * below
    size = torch.tensor([pixels_3HW.shape[2], pixels_3HW.shape[1]])
    grid = (2 * at * scale / size - 1).unsqueeze(0)
    return F.grid_sample(source, grid.to(source), padding_mode="border", align_corners=False)[0]
