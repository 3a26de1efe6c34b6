"""Colours of things, measured and changed: what a cut-out's pixels are called, and cut-outs in other colours.

Letters: P pixels.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from astrea.experts.packaged.class_names import COLOURS

PAINTS: dict[str, tuple[int, int, int]] = {
    "red": (205, 20, 25),
    "yellow": (240, 215, 30),
    "green": (40, 150, 50),
    "blue": (35, 80, 215),
    "purple": (112, 45, 172),
    "pink": (245, 130, 180),
}
"""Colours that cut-outs are given."""

CLEAR, SECOND = 0.6, 0.25
"""A thing has a colour if this share of its pixels has it, and no other colour more than the second share."""

MOTTLED = 45
"""Standard deviation of the brightness, 0..255, from which on gray is rather black and white."""

MIDDLE, CONTRAST, PAINT = 120, 40.0, 0.9
"""Of painted things: brightness that has the paint's own colour, standard deviation of the brightness, opacity."""

SEEN = 200
"""Opacity, 0..255, from which on a pixel counts."""


def name_pixels(rgb_P3: np.ndarray) -> np.ndarray:
    """The colour of each pixel as an index into `COLOURS`: (P, 3) uint8 -> (P,). By hue, saturation and value, with
    borders between the colours where people mostly put them."""
    rgb = rgb_P3.astype(np.float32) / 255
    value, low = rgb.max(1), rgb.min(1)
    spread = value - low
    saturation = spread / np.maximum(value, 1e-6)
    red, green, blue = rgb.T
    safe = np.maximum(spread, 1e-6)
    hue = np.select(
        [value == red, value == green],
        [(green - blue) / safe % 6, (blue - red) / safe + 2],
        (red - green) / safe + 4,
    )
    hue = hue * 60
    by_hue = np.select(
        [hue < 14, hue < 42, hue < 68, hue < 170, hue < 256, hue < 295, hue < 345],
        [0, 1, 2, 3, 4, 5, 6],
        0,
    )
    found = by_hue
    dull = (hue >= 10) & (hue < 60) & ((value < 0.62) | (saturation < 0.5))
    dull |= (by_hue == 0) & (saturation < 0.6) & (value < 0.75)
    found = np.where(dull, COLOURS.index("brown"), found)
    pale_red = (by_hue == 0) & (value > 0.75) & (saturation < 0.6)
    found = np.where(pale_red, COLOURS.index("pink"), found)
    # Cold colours are called gray sooner than warm ones.
    found = np.where(saturation < np.where((hue > 170) & (hue < 300), 0.28, 0.16), COLOURS.index("gray"), found)
    found = np.where((saturation < 0.14) & (value > 0.82), COLOURS.index("white"), found)
    found = np.where(value < 0.2, COLOURS.index("black"), found)
    return found


_NEIGHBOURS = (
    "red orange", "red pink", "red brown", "orange yellow", "orange brown", "brown black", "yellow brown", "black gray",
    "gray white", "purple pink", "blue purple", "yellow green", "yellow white",
)  # fmt: skip
BORDERS = frozenset(frozenset(pair.split()) for pair in _NEIGHBOURS)
"""Colours next to one another, which people call by either name."""


def dominant(image: Image.Image) -> str | None:
    """The colour that nearly all of a cut-out (RGBA) has; None where there is no such colour, or it could be called
    by another name as well."""
    small = image.copy()
    small.thumbnail((48, 48), Image.Resampling.BOX)
    pixels = np.asarray(small).reshape(-1, 4)
    pixels = pixels[pixels[:, 3] >= SEEN][:, :3]
    if len(pixels) < 12:
        return None
    shares = np.bincount(name_pixels(pixels), minlength=len(COLOURS)) / len(pixels)
    first, second = np.argsort(-shares)[:2]
    if shares[first] < CLEAR or shares[second] > SECOND:
        return None
    if COLOURS[first] == "gray" and pixels.max(1).std() > MOTTLED:
        return None
    near = frozenset((COLOURS[first], COLOURS[second])) in BORDERS
    return None if near and shares[second] > 0.18 else COLOURS[first]


def painted(image: Image.Image, colour: str) -> Image.Image:
    """A cut-out (RGBA) in one of `PAINTS`, its light and shade kept."""
    pixels = np.asarray(image)
    grey = np.asarray(image.convert("L"), np.float32)
    inside = grey[pixels[..., 3] >= SEEN]
    middle, spread = (float(inside.mean()), float(inside.std())) if len(inside) else (128.0, 1.0)
    # Dark things and white ones are brought to the middle, flat ones stay flat.
    shade = MIDDLE + (grey - middle) * min(1.5, CONTRAST / max(spread, 1.0))
    flat = _ramp(colour)[shade.clip(0, 255).astype(np.uint8)]
    mixed = pixels.copy()
    mixed[..., :3] = (PAINT * flat + (1 - PAINT) * pixels[..., :3]).astype(np.uint8)
    return Image.fromarray(mixed)


@cache
def _ramp(colour: str) -> np.ndarray:
    """From dark to light through a paint: (256, 3) float32."""
    paint = np.array(PAINTS[colour], np.float32)
    points = np.stack([paint * 0.2, paint, paint + (255 - paint) * 0.6])
    levels = np.arange(256)
    columns = [np.interp(levels, (0, MIDDLE, 255), points[:, channel]) for channel in range(3)]
    return np.stack(columns, 1).astype(np.float32)
