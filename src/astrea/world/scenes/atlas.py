"""Glyph masters of the embedded world, and how they become sprites of a few pixels.

The masters live in ``atlas.png``, which ships with the package, so that a scene is the same on every platform whatever
font renderer is installed. Everything below the atlas is integer arithmetic for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageFont

from astrea.world.scenes.vocabulary import KINDS, SIZE_SHARE

ATLAS_PATH = Path(__file__).with_name("atlas.png")
CELL = 64
"""Side of a master in pixels; a glyph's longest side fills it."""

COLUMNS = 8
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
INK = 96
"""Coverage (of 255) from which a pixel counts as the glyph's own."""

_OUTLINE = 150
"""Strongest darkening (of 255) of the rim around a glyph: without it white and yellow drown in light textures."""

_THICKEN = 9
"""Width in pixels (at eight times the master's size) of the brush that thickens pictograms."""


@dataclass(frozen=True, slots=True)
class Sprite:
    """A pictogram at its drawn size, tight around its own pixels.

    mask: (h, w) bool, the glyph's own pixels. ink: (h + 2, w + 2, 1) int32 coverage 0..256 with a rim of one pixel.
    keep: as ink, the share of 256 of the background that stays once rim and ink are laid on it.
    bits, area: the mask as rows of one long integer (for one width of the canvas), and its pixel count.
    """

    mask: np.ndarray
    ink: np.ndarray
    keep: np.ndarray
    bits: int
    area: int

    @property
    def height(self) -> int:
        """Height in pixels."""
        found: int = self.mask.shape[0]
        return found

    @property
    def width(self) -> int:
        """Width in pixels."""
        found: int = self.mask.shape[1]
        return found


@lru_cache(maxsize=1)
def _masters() -> tuple[np.ndarray, ...]:
    """Masters of all kinds, then of all letters: each (h, w) int64 coverage 0..255, cropped tight."""
    with Image.open(ATLAS_PATH) as picture:
        atlas = np.asarray(picture.convert("L"), dtype=np.int64)
    masters = []
    for index in range(len(KINDS) + len(LETTERS)):
        row, column = divmod(index, COLUMNS)
        masters.append(crop(atlas[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL], 1))
    return tuple(masters)


def crop(coverage: np.ndarray, threshold: int) -> np.ndarray:
    """The part of ``coverage`` (h, w) that holds every pixel of at least ``threshold``."""
    rows = np.flatnonzero((coverage >= threshold).any(axis=1))
    columns = np.flatnonzero((coverage >= threshold).any(axis=0))
    return coverage[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _overlap(source: int, target: int) -> np.ndarray:
    """How much each target pixel covers each source pixel: (target, source) int64, each row sums to ``source``."""
    ends = np.minimum(np.arange(1, target + 1)[:, None] * source, np.arange(1, source + 1)[None] * target)
    starts = np.maximum(np.arange(target)[:, None] * source, np.arange(source)[None] * target)
    found: np.ndarray = np.maximum(ends - starts, 0)
    return found


def resize(coverage: np.ndarray, height: int, width: int) -> np.ndarray:
    """Exact area average of ``coverage`` (h, w) at ``height`` x ``width``, rounded to the nearest integer."""
    rows, columns = coverage.shape
    total = _overlap(rows, height) @ coverage @ _overlap(columns, width).T
    found: np.ndarray = (total + rows * columns // 2) // (rows * columns)
    return found


def side_of(size: int, canvas: int) -> int:
    """Longest side in pixels of a pictogram of SIZES[size] on a canvas of that many pixels."""
    return (canvas * round(SIZE_SHARE[size] * 100) + 50) // 100


@cache
def sprite(kind: int, size: int, canvas: int, row: int = 0) -> Sprite:
    """KINDS[kind] at SIZES[size] for a canvas of that many pixels.

    Args:
        row: pixels of a row of ``bits``, where the canvas that it is laid on is another one; 0 = ``canvas``.
    """
    master = _masters()[kind]
    side, longest = side_of(size, canvas), max(master.shape)
    height, width = (max(1, (length * side + longest // 2) // longest) for length in master.shape)
    coverage = resize(master, height, width)
    # Averaging dims thin strokes; a gain brings them back to full colour and leaves solid parts as they are.
    coverage = crop(np.minimum(coverage * 4 // 3, 255), INK)
    mask = coverage >= INK
    ink = np.pad(coverage, 1)
    rim = np.pad(ink, 1)
    rim = np.max([rim[y : y + ink.shape[0], x : x + ink.shape[1]] for y in range(3) for x in range(3)], axis=0)
    keep = (255 - ink) * (255 - rim * _OUTLINE // 255) // 255
    bits = sum(1 << (int(y) * (row or canvas) + int(x)) for y, x in zip(*np.nonzero(mask), strict=True))
    return Sprite(mask, _frozen(ink), _frozen(keep), bits, int(mask.sum()))


@cache
def letter(character: str, height: int, width: int) -> np.ndarray:
    """A capital letter ``height`` pixels high and at most ``width`` wide: (height, w) int64 coverage 0..255."""
    master = _masters()[len(KINDS) + LETTERS.index(character)]
    natural = (master.shape[1] * height + master.shape[0] // 2) // master.shape[0]
    coverage = resize(master, height, max(1, min(width, natural)))
    coverage.setflags(write=False)
    return coverage


def _frozen(coverage: np.ndarray) -> np.ndarray:
    """(h, w) 0..255 -> (h, w, 1) int32 0..256 (so that blending is a shift); read-only, as the cache shares it."""
    shared: np.ndarray = (coverage + (coverage >> 7))[:, :, None].astype(np.int32)
    shared.setflags(write=False)
    return shared


def build_atlas(path: Path = ATLAS_PATH) -> None:
    """Draw ``atlas.png`` anew. For maintainers only: another font or renderer would change every scene."""
    from matplotlib import get_data_path

    fonts = Path(get_data_path()) / "fonts" / "ttf"
    glyphs = [(kind.glyph, "DejaVuSans.ttf") for kind in KINDS] + [(text, "DejaVuSans-Bold.ttf") for text in LETTERS]
    atlas = Image.new("L", (COLUMNS * CELL, -(-len(glyphs) // COLUMNS) * CELL))
    for index, (text, name) in enumerate(glyphs):
        # Drawn eight times too large, so that thickening is finer than a pixel of the master.
        mask = ImageFont.truetype(str(fonts / name), 8 * CELL).getmask(text, mode="L")
        large = Image.new("L", (mask.size[0] + 48, mask.size[1] + 48))
        large.paste(Image.frombytes("L", mask.size, bytes(mask)), (24, 24))
        if index < len(KINDS):
            large = large.filter(ImageFilter.MaxFilter(_THICKEN))
        tight = large.crop(large.getbbox())
        longest = max(tight.size)
        small = tight.resize(
            (max(1, round(tight.width * CELL / longest)), max(1, round(tight.height * CELL / longest))),
            Image.Resampling.BOX,
        )
        row, column = divmod(index, COLUMNS)
        atlas.paste(small, (column * CELL + (CELL - small.width) // 2, row * CELL + (CELL - small.height) // 2))
    atlas.save(path, optimize=True)
