"""A small folder of cut-outs: coloured blobs with a transparent surround, each beside its caption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

THINGS: dict[str, tuple[str, tuple[int, int, int]]] = {
    "animals/birds/owl": ("An owl.", (120, 80, 45)),
    "animals/frog": ("A frog.", (40, 150, 50)),
    "animals/pig": ("A pink pig (asleep).", (245, 130, 180)),
    "animals/whale": ("A whale!", (35, 80, 215)),
    "food/lemon": ("A lemon.", (240, 215, 30)),
    "food/tomato": ("A tomato, ripe and red.", (205, 20, 25)),
    "food/cherries": ("A cherry.", (180, 15, 30)),
    "tools/hammer": ("A hammer.", (128, 128, 128)),
    "tools/saw": ("A saw.", (200, 200, 205)),
    "vehicles/bus": ("A bus.", (40, 160, 60)),
    "vehicles/race-car": ("A race car.", (205, 20, 25)),
    "vehicles/boat": ("A boat.", (30, 70, 200)),
}
"""Path without ending -> caption, colour."""


def cut_out(rgb: tuple[int, int, int], number: int = 0, size: tuple[int, int] = (60, 48)) -> Image.Image:
    """A blob of one colour with a little light and shade; its shape depends on the number."""
    image = Image.new("RGBA", size, (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    frame = (4, 4, size[0] - 5, size[1] - 5)
    [pen.ellipse, pen.rectangle, lambda box, fill: pen.regular_polygon((30, 24, 19), 3, fill=fill)][number % 3](
        frame, fill=(*rgb, 255)
    )
    pixels = np.array(image).astype(int)
    pixels[..., :3] += np.random.default_rng(number).integers(-8, 9, (size[1], size[0], 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_cut_outs(folder: Path) -> Path:
    """Write `THINGS` below a folder; returns it."""
    for number, (name, (caption, rgb)) in enumerate(THINGS.items()):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cut_out(rgb, number).save(path)
        path.with_suffix(".txt").write_text(f"{caption}\nfr.utf8=Une chose.\n", encoding="utf-8")
    return folder
