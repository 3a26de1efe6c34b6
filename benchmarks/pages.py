"""Pages to be read: scikit-image's, and plain paragraphs that are set here and look scanned."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFilter, ImageFont

WIDTH, HEIGHT = 1200, 1600
MARGIN = 110


@dataclass(frozen=True)
class Page:
    """A page, the lines on it, and words that are not on it but could be."""

    name: str
    picture: Image.Image
    lines: tuple[str, ...]
    absent: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """How a text is set and scanned. size: of the letters in pixels. degrees: how far the page is turned. blur: radius
    in pixels. noise: standard deviation, of 255."""

    name: str
    text: str
    font: str
    size: int
    degrees: float
    blur: float
    noise: float
    absent: tuple[str, ...]


SETTINGS = (
    Setting(
        "harbour",
        "The harbour was built by the fishermen of the village. Every spring they bring new stones from the quarry and "
        "mend what the winter has taken. A narrow path leads along the wall to the lighthouse, whose lamp can be seen "
        "from twelve miles away. Visitors are asked to stay on the path when the sea is rough.",
        "DejaVuSerif.ttf",
        36,
        0.6,
        0.7,
        6.0,
        ("kitchen", "railway", "orchestra", "desert"),
    ),
    Setting(
        "bread",
        "Mix the flour with warm water and a little salt. Let the dough rest for an hour under a clean cloth, then "
        "fold it four times and let it rest again. Heat the oven until a drop of water dances on the plate. Bake the "
        "loaf for forty minutes and let it cool before you cut the first slice.",
        "DejaVuSans.ttf",
        32,
        -0.8,
        0.9,
        8.0,
        ("bicycle", "mountain", "library", "engine"),
    ),
    Setting(
        "library",
        "Books may be kept for three weeks. Please return them to the desk on the ground floor or drop them into the "
        "box beside the gate when the house is closed. Newspapers and maps stay in the reading room. A lost book is "
        "paid for at its present price, and children under twelve need the signature of a parent.",
        "DejaVuSansMono.ttf",
        28,
        0.4,
        0.6,
        10.0,
        ("garden", "sailor", "cheese", "violin"),
    ),
)


def printed(setting: Setting) -> Page:
    """A page of one paragraph; the same pixels whenever it is asked for."""
    font = ImageFont.truetype(str(Path(get_data_path(), "fonts", "ttf", setting.font)), setting.size)
    letters = int((WIDTH - 2 * MARGIN) / font.getlength("n"))
    lines = textwrap.wrap(setting.text, letters)
    sheet = Image.new("RGB", (WIDTH, HEIGHT), (250, 248, 242))
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        pen.text((MARGIN, 2 * MARGIN + number * round(1.7 * setting.size)), line, fill=(35, 32, 30), font=font)
    turned = sheet.rotate(setting.degrees, Image.Resampling.BICUBIC, fillcolor=(250, 248, 242))
    soft = np.asarray(turned.filter(ImageFilter.GaussianBlur(setting.blur)), np.float32)
    noise = np.random.default_rng(setting.size).normal(0, setting.noise, soft.shape)
    scanned = Image.fromarray((soft + noise).clip(0, 255).astype(np.uint8))
    return Page(setting.name, scanned, tuple(lines), setting.absent)


def textbook() -> Page:
    """scikit-image's page: a small photograph of a part of one."""
    from skimage import data

    lines = (
        "Region-based segmentation",
        "Let us first determine markers of the coins and the",
        "background. These markers are pixels that we can label",
        "unambiguously as either object or background. Here,",
        "the markers are found at the two extreme parts of the",
        "histogram of grey values:",
    )
    return Page("page", Image.fromarray(data.page()).convert("RGB"), lines, ("harbour", "winter", "bread", "ticket"))


def pages() -> list[Page]:
    """All of them."""
    return [textbook(), *map(printed, SETTINGS)]
