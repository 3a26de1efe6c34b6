"""Experts' readings drawn for people: one panel per expert beside the picture.

A panel holds, from top to bottom, the expert's name, what it can place in the picture (boxes, regions) or otherwise its
sentence, and every label with a bar as long as its score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from astrea.experts.protocol import Reading

_PANEL = 192  # about how wide a panel gets, in pixels, when no scale is given
_GAP = 12
_TITLE, _ROW, _LINE = 22, 17, 24
_MOST_ROWS = 8
_MASK_ALPHA = 0.45
_PAPER, _BLOCK, _TEXT, _FAINT, _TRACK = (24, 26, 32), (34, 37, 45), (232, 234, 238), (150, 156, 168), (58, 62, 73)
_BAR = (92, 158, 255)
# Paul Tol's "bright" and "light" schemes mixed: eight colours that stay apart for most colour-blind readers.
_COLOURS = (
    (102, 204, 238),
    (238, 136, 102),
    (238, 221, 136),
    (110, 200, 120),
    (255, 140, 190),
    (170, 170, 255),
    (187, 204, 51),
    (235, 235, 235),
)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Box = tuple[float, float, float, float]


def draw_readings(image: Image.Image, readings: Mapping[str, Reading], *, scale: int | None = None) -> Image.Image:
    """Draw what each expert saw in one picture.

    Args:
        image: the picture, any mode.
        readings: expert name -> its reading, drawn in this order. Boxes are shares of the picture; a mask may have any
            size and is stretched over it. Scores that are no number between 0 and 1 are drawn as the nearest that is.
        scale: how many pixels wide each pixel of the picture is drawn; by default panels are about 192 pixels wide,
            and a picture much larger than that is made smaller.

    Returns:
        An RGB picture: the picture itself on the left, then one panel per expert.

    Raises:
        ValueError: ``scale`` is less than 1.
    """
    if scale is not None and scale < 1:
        raise ValueError(f"scale is {scale}; it must be 1 or more")
    picture = _resized(image, scale)
    width = max(picture.width, _PANEL * 3 // 4)  # a narrow picture must not squeeze the text
    panels = [_picture_panel(picture, width), *(_panel(name, r, picture, width) for name, r in readings.items())]
    height = max(panel.height for panel in panels)
    sheet = Image.new("RGB", (len(panels) * (width + _GAP) + _GAP, height + 2 * _GAP), _PAPER)
    for index, panel in enumerate(panels):
        sheet.paste(panel, (_GAP + index * (width + _GAP), _GAP))
    return sheet


def _resized(image: Image.Image, scale: int | None) -> Image.Image:
    rgb = image.convert("RGB")
    longest = max(rgb.size)
    if scale is None and longest > _PANEL * 3 // 2:
        size = (max(1, round(rgb.width * _PANEL / longest)), max(1, round(rgb.height * _PANEL / longest)))
        return rgb.resize(size, Image.Resampling.LANCZOS)
    factor = scale or max(1, round(_PANEL / longest))
    return rgb.resize((rgb.width * factor, rgb.height * factor), Image.Resampling.NEAREST)


@lru_cache(maxsize=8)
def _font(size: int, bold: bool = False) -> Font:
    """DejaVu Sans, which matplotlib ships: hinted well at small sizes, and labels may be in any of many scripts."""
    import matplotlib  # here, because it is slow to import and most runs draw nothing

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    try:
        return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
    except OSError:
        return ImageFont.load_default(size)


def _clean(text: str) -> str:
    """One line of text that every font can be asked for: no line breaks, control or lone surrogate characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _fit(text: str, width: float, font: Font) -> str:
    """The text, shortened with an ellipsis until it is no wider than ``width`` pixels."""
    text = _clean(text)[:200]
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _share(score: float) -> float:
    return min(1.0, max(0.0, score)) if math.isfinite(score) else 0.0


def _colour(index: int) -> tuple[int, int, int]:
    return _COLOURS[index % len(_COLOURS)]


def _blank(name: str, width: int, height: int, *, faint: bool = False) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    panel = Image.new("RGB", (width, _TITLE + height), _PAPER)
    pen = ImageDraw.Draw(panel)
    font = _font(12, bold=not faint)
    pen.text((0, 2), _fit(name, width, font), fill=_FAINT if faint else _TEXT, font=font)
    return panel, pen


def _picture_panel(picture: Image.Image, width: int) -> Image.Image:
    panel, _ = _blank("picture", width, picture.height, faint=True)
    panel.paste(picture, (0, _TITLE))
    return panel


def _panel(name: str, reading: Reading, picture: Image.Image, width: int) -> Image.Image:
    """One expert's panel: the placed part or the sentence on top, the list of labels with bars beneath."""
    rows = _rows(reading)
    lines = _wrapped(reading, width)
    placed = bool(reading.boxes) or reading.mask is not None
    top = (picture.height + 8 if placed else 0) + (len(lines) * _LINE + 16 if lines else 0)
    shown, hidden = rows[:_MOST_ROWS], len(rows) - _MOST_ROWS
    empty = not (placed or lines or rows)
    bottom = len(shown) * _ROW + (_ROW if hidden > 0 or empty else 0)
    panel, pen = _blank(name, width, max(top + bottom, picture.height if placed else 0))
    y = _TITLE
    if placed:
        panel.paste(_drawn(picture, reading), (0, y))
        y += picture.height + 8
    if lines:
        _write_caption(pen, lines, y, width)
        y += len(lines) * _LINE + 16
    for index, (label, score) in enumerate(shown):
        _write_row(pen, label, score, _colour(index) if placed else _BAR, y + index * _ROW, width)
    y += len(shown) * _ROW
    if hidden > 0:
        pen.text((0, y + 2), f"and {hidden} more", fill=_FAINT, font=_font(10))
    elif empty:
        pen.text((0, y + 2), "nothing seen", fill=_FAINT, font=_font(11))
    return panel


def _rows(reading: Reading) -> list[tuple[str, float | None]]:
    """Label and score of every line of the list; words that the sentence already shows with a bar are left out."""
    if _is_spelled(reading):
        return []
    labels = list(reading.labels) or ["?"] * len(reading.boxes)
    return [(label, reading.scores[i] if i < len(reading.scores) else None) for i, label in enumerate(labels)]


def _is_spelled(reading: Reading) -> bool:
    """Whether the labels are just the caption's words, one by one."""
    return bool(reading.caption) and not reading.boxes and reading.caption.split() == reading.labels


# --- boxes and regions ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Mark:
    """A box in pixels with its label, ready to draw."""

    box: Box
    label: str
    colour: tuple[int, int, int]


def _drawn(picture: Image.Image, reading: Reading) -> Image.Image:
    """The picture with regions tinted and outlined, boxes framed, and labels where they cover each other least."""
    drawn = picture.copy()
    if reading.mask is not None:
        drawn = _tinted(drawn, np.asarray(reading.mask.detach().cpu()))
    pen = ImageDraw.Draw(drawn)
    marks = [
        _Mark(box, reading.labels[i] if i < len(reading.labels) else "", _colour(i))
        for i, raw in enumerate(reading.boxes)
        if (box := _in_pixels(raw, picture)) is not None
    ]
    if reading.mask is None:  # an outlined region shows where it is better than its box does
        for mark in marks:
            x0, y0, x1, y1 = mark.box
            # A dark rim outside and inside keeps the frame visible on any background.
            pen.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=(0, 0, 0), width=4)
            pen.rectangle((x0, y0, x1, y1), outline=mark.colour, width=2)
    _write_labels(pen, marks, drawn.size)
    return drawn


def _in_pixels(box: Box, picture: Image.Image) -> Box | None:
    """Corners in order, within the picture; None where a corner is no number."""
    if not all(map(math.isfinite, box)):
        return None
    (x0, x1), (y0, y1) = sorted((_share(box[0]), _share(box[2]))), sorted((_share(box[1]), _share(box[3])))
    right, bottom = picture.width - 1, picture.height - 1
    return x0 * right, y0 * bottom, x1 * right, y1 * bottom


def _tinted(picture: Image.Image, mask: np.ndarray) -> Image.Image:
    """Every region under a translucent colour with an outline in the full one."""
    regions = np.asarray(Image.fromarray(mask.astype(np.int32)).resize(picture.size, Image.Resampling.NEAREST))
    pixels = np.asarray(picture).astype(np.float32)
    colours = np.array(_COLOURS, np.float32)[(regions - 1) % len(_COLOURS)]
    inside = (regions > 0)[..., None]
    pixels = np.where(inside, pixels * (1 - _MASK_ALPHA) + colours * _MASK_ALPHA, pixels * 0.75)
    edge = np.zeros_like(regions, bool)
    for axis in (0, 1):
        for step in (-1, 1, -2, 2):
            edge |= np.roll(regions, step, axis) != regions
    pixels = np.where(edge[..., None] & inside, colours, pixels)
    return Image.fromarray(pixels.round().astype(np.uint8))


def _write_labels(pen: ImageDraw.ImageDraw, marks: list[_Mark], size: tuple[int, int]) -> None:
    """Plates with the labels: above, below or inside the box, wherever least of an earlier label is covered."""
    font = _font(10)
    taken: list[Box] = []
    for mark in marks:
        text = _fit(mark.label, size[0] - 6, font)
        if not text:
            continue
        wide, high = font.getlength(text) + 5, 13
        x0, y0, x1, y1 = mark.box
        places = [
            (min(max(0.0, x), size[0] - wide), min(max(0.0, y), size[1] - high))
            for x, y in (
                (x0, y0 - high),
                (x0, y1 + 1),
                (x1 - wide, y0 - high),
                (x1 - wide, y1 + 1),
                (x0, y0),
                (x0, y1 - high),
            )
        ]
        plates = [(x, y, x + wide, y + high) for x, y in places]
        plate = min(plates, key=lambda p: sum(_overlap(p, other) for other in taken))
        taken.append(plate)
        pen.rectangle((plate[0], plate[1], plate[2] - 1, plate[3] - 1), fill=mark.colour)
        pen.text((plate[0] + 2, plate[1] + high / 2), text, fill=(12, 14, 18), font=font, anchor="lm")


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


# --- text -------------------------------------------------------------------------------------------------------------


def _write_row(
    pen: ImageDraw.ImageDraw, label: str, score: float | None, colour: tuple[int, int, int], y: int, width: int
) -> None:
    """A label, a bar as long as its score, and the score."""
    font, start, end = _font(11), width * 0.56, width - 32
    pen.rectangle((0, y + 5, 5, y + 11), fill=colour)
    pen.text((11, y + _ROW / 2), _fit(label, start - 16, font), fill=_TEXT, font=font, anchor="lm")
    if score is None:
        return
    share = _share(score)
    pen.rounded_rectangle((start, y + 6, end, y + 10), 2, fill=_TRACK)
    if share * (end - start) >= 1:
        pen.rounded_rectangle((start, y + 6, start + share * (end - start), y + 10), 2, fill=colour)
    text = f"{share:.2f}" if math.isfinite(score) else "?"
    pen.text((width, y + _ROW / 2), text, fill=_FAINT, font=_font(10), anchor="rm")


def _wrapped(reading: Reading, width: int) -> list[list[tuple[str, float | None]]]:
    """The caption as lines of (word, score); a word has a score only where the labels are the caption's words."""
    scores = reading.scores if _is_spelled(reading) else []
    font, used = _font(13), math.inf
    lines: list[list[tuple[str, float | None]]] = []
    for index, word in enumerate(reading.caption.split()):
        text = _fit(word, width - 20, font)
        if not text:
            continue
        length = font.getlength(text + " ")
        if used + length > width - 16:
            lines.append([])
            used = 0
        lines[-1].append((text, scores[index] if index < len(scores) else None))
        used += length
    return lines


def _write_caption(pen: ImageDraw.ImageDraw, lines: list[list[tuple[str, float | None]]], top: int, width: int) -> None:
    """The sentence on a block of its own, every word underlined in proportion to its score."""
    font = _font(13)
    pen.rounded_rectangle((0, top, width - 1, top + len(lines) * _LINE + 9), 5, fill=_BLOCK)
    for number, line in enumerate(lines):
        x, y = 10.0, top + 5 + number * _LINE
        for word, score in line:
            length = font.getlength(word)
            pen.text((x, y + 9), word, fill=_TEXT, font=font, anchor="lm")
            if score is not None:
                pen.rectangle((x, y + 19, x + length, y + 20), fill=_TRACK)
                if _share(score) * length >= 1:
                    pen.rectangle((x, y + 19, x + _share(score) * length, y + 20), fill=_BAR)
            x += font.getlength(word + " ")
