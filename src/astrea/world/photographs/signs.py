"""Printed signs: a word on a plate."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

WORDS: tuple[str, ...] = (
    "open", "stop", "exit", "taxi", "cafe", "sale", "park", "bank", "post", "news", "milk", "shop", "gate", "love",
    "jazz", "home", "work", "east", "west", "gold", "iron", "rice", "soup", "yoga", "quiz", "zoom", "lamp", "ring",
    "hotel", "pizza", "music", "beach", "metro", "north", "south", "press", "ready", "happy", "salon", "paint",
    "bread", "dance", "clean", "quiet", "danger", "office", "garden", "market", "museum", "police", "school", "summer",
    "winter", "winner", "ticket", "coffee", "dinner", "doctor", "engine", "orient",
)  # fmt: skip

STYLES: tuple[tuple[str, tuple[int, int, int], tuple[int, int, int]], ...] = (
    ("DejaVuSans-Bold.ttf", (245, 242, 232), (25, 25, 30)),
    ("DejaVuSans.ttf", (250, 214, 60), (30, 28, 20)),
    ("DejaVuSerif-Bold.ttf", (30, 70, 140), (245, 245, 245)),
    ("DejaVuSans-Bold.ttf", (180, 30, 35), (250, 250, 250)),
    ("DejaVuSansMono-Bold.ttf", (35, 105, 60), (245, 250, 245)),
    ("DejaVuSerif.ttf", (250, 250, 250), (60, 20, 20)),
)
"""Font, plate, letters."""


@lru_cache(maxsize=512)
def plate(word: str, height: int, style: int) -> Image.Image:
    """A sign with letters about ``height`` pixels high, RGB; small words in capitals."""
    name, ground, ink = STYLES[style % len(STYLES)]
    text = word.upper() if style // len(STYLES) % 2 else word
    font = ImageFont.truetype(str(Path(get_data_path(), "fonts", "ttf", name)), height)
    left, top, right, bottom = font.getbbox(text)
    margin = max(2, height // 3)
    size = int(right - left) + 2 * margin, int(bottom - top) + 2 * margin
    image = Image.new("RGB", size, ground)
    pen = ImageDraw.Draw(image)
    pen.text((margin - left, margin - top), text, fill=ink, font=font)
    pen.rectangle((1, 1, size[0] - 2, size[1] - 2), outline=ink, width=max(1, height // 12))
    return image
