"""Banks of surfaces that scenes are painted with: background patterns, noise and clutter.

Each bank is made once per canvas size, by integer arithmetic from a fixed key, and then cut at random offsets: that is
what makes drawing fast and the same on every platform. Figures are as large as those of a canvas of ``unit`` pixels, so
that a larger canvas with pictograms of the same size has more of them, not larger ones.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from random import Random

import numpy as np

from astrea.world.scenes.atlas import sprite
from astrea.world.scenes.vocabulary import COLOUR_RGB, KINDS

PATTERNS = 48
CLUTTER_LAYERS = 6


def below(rng: Random, count: int) -> int:
    """A random integer in 0..count - 1. Only ``Random.random`` is promised to stay the same across Python versions."""
    return int(rng.random() * count)


def _bytes(key: str, *shape: int) -> np.ndarray:
    """Random int32 0..255 of ``shape``, fixed for ever by ``key``."""
    data = hashlib.shake_256(key.encode()).digest(int(np.prod(shape)))
    return np.frombuffer(data, dtype=np.uint8).reshape(shape).astype(np.int32)


def _triangle(phase: np.ndarray, period: int) -> np.ndarray:
    """Triangle wave of ``phase`` with that period: int32 0..255."""
    half = max(1, period // 2)
    found: np.ndarray = np.abs(phase % (2 * half) - half) * 255 // half
    return found


def _blotches(key: str, canvas: int, cells: int) -> np.ndarray:
    """Smooth random spots, ``cells`` to a side, by integer bilinear interpolation: (canvas, canvas) int32 0..255."""
    grid = _bytes(key, cells + 1, cells + 1)
    steps = np.arange(canvas) * cells * 256 // canvas
    cell, part = steps >> 8, steps & 255
    rows = grid[cell] * (256 - part)[:, None] + grid[cell + 1] * part[:, None]
    found: np.ndarray = (rows[:, cell] * (256 - part) + rows[:, cell + 1] * part) >> 16
    return found


@lru_cache(maxsize=4)
def patterns(canvas: int, unit: int) -> np.ndarray:
    """Background patterns: (PATTERNS, canvas, canvas, 1) int32 0..255, gradients, stripes, checks, rings and spots."""
    rng = Random(20240601)
    ys, xs = np.mgrid[0:canvas, 0:canvas].astype(np.int32)
    bank = np.empty((PATTERNS, canvas, canvas, 1), dtype=np.int32)
    for index in range(PATTERNS):
        slope_x, slope_y = 1 + below(rng, 4), below(rng, 9) - 4
        period = unit * (4 + below(rng, 14)) // 64
        along = slope_x * xs + slope_y * ys
        gradient = (along - along.min()) * 255 // int(np.ptp(along))
        centre_x, centre_y = below(rng, canvas), below(rng, canvas)
        figure = (
            gradient,
            _triangle(along, period * (slope_x + abs(slope_y)) // 2),
            _triangle(xs, 2 * period) // 2 + _triangle(ys, 2 * period) // 2,
            _triangle(((xs - centre_x) ** 2 + (ys - centre_y) ** 2) // canvas, period),
            _blotches(f"coarse {index}", canvas, (3 + below(rng, 4)) * canvas // unit),
            _blotches(f"fine {index}", canvas, (9 + below(rng, 8)) * canvas // unit),
        )[index % 6]
        speckle = _bytes(f"speckle {index}", canvas, canvas)
        bank[index, :, :, 0] = (figure * 6 + gradient * 4 + speckle * (1 + below(rng, 3))) // 13
    bank.setflags(write=False)
    return bank


@lru_cache(maxsize=4)
def noise(canvas: int) -> np.ndarray:
    """Bell-shaped noise to cut canvases from: (2 * canvas, 2 * canvas, 3) int32, mean 0, standard deviation 148."""
    side = 2 * canvas
    bank: np.ndarray = _bytes(f"noise {canvas}", 4, side, side, 3).sum(axis=0, dtype=np.int32) - 510
    bank.setflags(write=False)
    return bank


@lru_cache(maxsize=4)
def clutter(canvas: int, unit: int, dense: bool) -> tuple[np.ndarray, np.ndarray]:
    """Strokes and glyph fragments to cut canvases from.

    Returns colours (CLUTTER_LAYERS, 2 * canvas, 2 * canvas, 3) and opacity (..., 1), both int32 0..255. The dense
    version goes behind the objects; the sparse one, small strokes only, over them.
    """
    rng = Random(20240602 + dense)
    side = 2 * canvas
    colours = np.zeros((CLUTTER_LAYERS, side, side, 3), dtype=np.int32)
    opacity = np.zeros((CLUTTER_LAYERS, side, side, 1), dtype=np.int32)
    for layer in range(CLUTTER_LAYERS):
        for _ in range((230 if dense else 84) * canvas**2 // unit**2):
            rgb = np.array(COLOUR_RGB[below(rng, len(COLOUR_RGB))]) * (120 + below(rng, 110)) // 256
            strength = (70 if dense else 130) + below(rng, 90)
            if dense and rng.random() < 0.6:
                rows, columns, cover = _fragment(rng, unit)
            else:
                rows, columns, cover = _stroke(rng, unit, 12 if dense else 7)
            rows, columns = (rows + below(rng, side)) % side, (columns + below(rng, side)) % side
            colours[layer, rows, columns] = rgb
            opacity[layer, rows, columns, 0] = cover * strength // 256
    colours.setflags(write=False)
    opacity.setflags(write=False)
    return colours, opacity


def _fragment(rng: Random, canvas: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A torn-out piece of some glyph: rows, columns and coverage 0..256 of its pixels, each (n,)."""
    ink = sprite(below(rng, len(KINDS)), 1 + below(rng, 2), canvas).ink[:, :, 0]
    height, width = ((5 + below(rng, 5)) * canvas // 64 for _ in range(2))
    top, left = below(rng, max(1, ink.shape[0] - height)), below(rng, max(1, ink.shape[1] - width))
    piece = ink[top : top + height, left : left + width]
    rows, columns = np.nonzero(piece)
    return rows, columns, piece[rows, columns]


def _stroke(rng: Random, canvas: int, longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A short straight stroke, one or two pixels thick, in the form of `_fragment`."""
    longest = longest * canvas // 64
    run_x, run_y = below(rng, 2 * longest + 1) - longest, below(rng, 2 * longest + 1) - longest
    steps = np.arange(max(abs(run_x), abs(run_y)) + 1)
    rows, columns = steps * run_y // len(steps), steps * run_x // len(steps)
    if rng.random() < 0.4:
        rows, columns = np.concatenate([rows, rows + 1]), np.concatenate([columns, columns])
    return rows, columns, np.full(len(rows), 256)
