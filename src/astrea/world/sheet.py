"""A contact sheet of scenes, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

PAPER, TEXT, FAINT = (24, 26, 32), (226, 228, 232), (140, 146, 156)
GAP = 10
FONT_SIZE = 11
LINE = 14

Box = tuple[int, int, int, int]
Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Tile:
    """One scene on a sheet. frames: (x0, y0, x1, y1) in its pixels, half open, each with a colour. headline: its first
    line. labels: what it shows."""

    picture: Image.Image
    frames: Sequence[tuple[Box, Colour]]
    headline: str
    labels: Sequence[str]


def contact_sheet(tiles: Sequence[Tile], columns: int = 8, scale: int = 3) -> Image.Image:
    """Scenes side by side, each pixel ``scale`` pixels wide, with frames around and names beneath: an RGB picture."""
    if not tiles:
        raise ValueError("a contact sheet needs at least one scene")
    font = ImageFont.load_default(size=FONT_SIZE)
    columns = min(columns, len(tiles))
    side = max(max(tile.picture.size) for tile in tiles) * scale
    texts = [_wrap([tile.headline], side, font) + _wrap(tile.labels, side, font) for tile in tiles]
    text_height = max(map(len, texts)) * LINE + 4
    rows = -(-len(tiles) // columns)
    cell = side + GAP, side + text_height + GAP
    sheet = Image.new("RGB", (columns * cell[0] + GAP, rows * cell[1] + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, (tile, lines) in enumerate(zip(tiles, texts, strict=True)):
        left = GAP + index % columns * cell[0]
        top = GAP + index // columns * cell[1]
        size = tile.picture.width * scale, tile.picture.height * scale
        sheet.paste(tile.picture.resize(size, Image.Resampling.NEAREST), (left, top))
        for (x0, y0, x1, y1), colour in tile.frames:
            pen.rectangle(
                (left + x0 * scale, top + y0 * scale, left + x1 * scale - 1, top + y1 * scale - 1), outline=colour
            )
        for number, line in enumerate(lines):
            pen.text((left, top + side + 2 + number * LINE), line, fill=FAINT if number else TEXT, font=font)
    return sheet


def _wrap(parts: Sequence[str], width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[str]:
    """Join the parts with commas into lines no wider than ``width`` pixels."""
    lines: list[str] = []
    for part in parts:
        if lines and font.getlength(f"{lines[-1]}, {part}") <= width:
            lines[-1] += f", {part}"
        else:
            if lines:
                lines[-1] += ","
            lines.append(part)
    return lines
