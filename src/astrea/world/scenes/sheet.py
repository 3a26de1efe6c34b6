"""A contact sheet of scenes, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from astrea.world.scenes.scene import Scene
from astrea.world.scenes.vocabulary import COLOUR_RGB, COLOURS, CONDITIONS, KINDS

_PAPER, _TEXT, _FAINT, _PLATE = (24, 26, 32), (226, 228, 232), (140, 146, 156), (90, 220, 230)
_GAP = 10
_FONT_SIZE = 11
_LINE = 14


def contact_sheet(
    scenes: Sequence[Scene],
    columns: int = 8,
    scale: int = 3,
    boxes: bool = True,
    titles: list[str] | None = None,
) -> Image.Image:
    """Scenes side by side, each pixel ``scale`` pixels wide, with what they show beneath.

    boxes: frame every object (in its own colour) and the word plate. titles: a line above the labels of each scene,
    in place of its condition and word. Returns an RGB picture.
    """
    if not scenes:
        raise ValueError("a contact sheet needs at least one scene")
    if titles is not None and len(titles) != len(scenes):
        raise ValueError(f"{len(titles)} titles for {len(scenes)} scenes")
    font = ImageFont.load_default(size=_FONT_SIZE)
    columns = min(columns, len(scenes))
    side = max(scene.spec.canvas for scene in scenes) * scale
    captions = [
        _wrap([titles[index]] if titles else [_headline(scene)], side, font) + _wrap(_labels(scene), side, font)
        for index, scene in enumerate(scenes)
    ]
    text_height = max(map(len, captions)) * _LINE + 4
    rows = -(-len(scenes) // columns)
    cell = side + _GAP, side + text_height + _GAP
    sheet = Image.new("RGB", (columns * cell[0] + _GAP, rows * cell[1] + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, (scene, lines) in enumerate(zip(scenes, captions, strict=True)):
        left = _GAP + index % columns * cell[0]
        top = _GAP + index // columns * cell[1]
        tile = Image.fromarray(scene.image)
        sheet.paste(tile.resize((tile.width * scale, tile.height * scale), Image.Resampling.NEAREST), (left, top))
        if boxes:
            _draw_boxes(pen, scene, left, top, scale)
        for number, line in enumerate(lines):
            pen.text((left, top + side + 2 + number * _LINE), line, fill=_FAINT if number else _TEXT, font=font)
    return sheet


def _headline(scene: Scene) -> str:
    word = f', "{scene.word}"' if scene.word else ""
    return CONDITIONS[scene.condition] + word


def _labels(scene: Scene) -> list[str]:
    return [f"{COLOURS[item.colour]} {KINDS[item.kind].name}" for item in scene.objects]


def _wrap(parts: list[str], width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[str]:
    """Join the parts with commas into lines no wider than ``width`` pixels."""
    lines = [parts[0]]
    for part in parts[1:]:
        longer = f"{lines[-1]}, {part}"
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines[-1] += ","
            lines.append(part)
    return lines


def _draw_boxes(pen: ImageDraw.ImageDraw, scene: Scene, left: int, top: int, scale: int) -> None:
    frames = [(item.box, COLOUR_RGB[item.colour]) for item in scene.objects]
    if scene.word_box is not None:
        frames.append((scene.word_box, _PLATE))
    for (x0, y0, x1, y1), colour in frames:
        pen.rectangle(
            (left + x0 * scale, top + y0 * scale, left + x1 * scale - 1, top + y1 * scale - 1), outline=colour
        )
