"""A decoded image of any mode -> RGB, 8 bits, a few rows at a time: whole, the steps between would take several times
the memory of the picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

PIXELS_AT_ONCE = 1 << 20


def to_rgb(image: Image.Image) -> Image.Image:
    """A new RGB image. Transparency is laid over white; 16-bit grey is divided by 256; 32-bit integers and floats are
    scaled by the range of all their values."""
    if image.mode in ("I", "F"):
        low, high = _range(image)
        return _strip_by_strip(image, lambda strip: _wide_to_rgb(strip, low, high))
    if image.mode.startswith("I;16"):
        return _strip_by_strip(image, _sixteen_bit_to_rgb)
    if image.has_transparency_data:
        return _strip_by_strip(image, _over_white)
    return image.convert("RGB")


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The image in strips of whole rows, each with its first row."""
    rows = max(1, PIXELS_AT_ONCE // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _strip_by_strip(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    whole = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        whole.paste(convert(strip), (0, top))
    return whole


def _over_white(strip: Image.Image) -> Image.Image:
    # Pillow has no direct way out of La.
    rgba = (strip.convert("LA") if strip.mode == "La" else strip).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _sixteen_bit_to_rgb(strip: Image.Image) -> Image.Image:
    """16-bit grey to RGB by the high byte; a grey value declared transparent (PNG) becomes white."""
    values = np.asarray(strip)
    grey = (values >> 8).astype(np.uint8)
    transparent = strip.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _range(image: Image.Image) -> tuple[float, float]:
    """The least and the greatest finite value; zeros if there is none."""
    low, high = np.inf, -np.inf
    for _, strip in _strips(image):
        values = np.asarray(strip)
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (low, high) if low <= high else (0.0, 0.0)


def _wide_to_rgb(strip: Image.Image, low: float, high: float) -> Image.Image:
    """32-bit integers or floats of a picture whose values are ``low .. high``.

    The file does not state the range, so the values decide: floats in 0..1 are scaled by 255,
    0..255 is taken as it is, 0..65535 is divided by 256, and any other range is stretched to fill 0..255. NaN counts
    as 0, infinities as the nearest finite value.
    """
    values = np.asarray(strip)
    numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=high, neginf=low)
    if low >= 0 and high <= 1 and values.dtype.kind == "f":
        scaled = numbers * 255
    elif low >= 0 and high <= 255:
        scaled = numbers
    elif low >= 0 and high <= 65535:
        scaled = np.floor(numbers / 256)
    else:
        scaled = (numbers - low) * (255 / max(high - low, 1e-12))
    return Image.fromarray(np.clip(np.round(scaled), 0, 255).astype(np.uint8)).convert("RGB")
