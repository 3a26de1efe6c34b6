"""Backgrounds: crops of photographs in other light, or procedural gradients with grain where there are none.

Letters: S side of the canvas.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from astrea.common.errors import AstreaError
from astrea.common.paths import files_below, is_file, is_folder
from astrea.data.images import load_image

TEXTURES = ("brick.png", "grass.png", "gravel.png", "moon.png", "hubble_deep_field.jpg", "ihc.png")
"""Photographs within scikit-image on which no thing is to be seen that a question could mean. The others stay unseen
in training: they are good for trying a model."""

ENDINGS = {".png", ".jpg", ".jpeg", ".webp"}
MOST = 640
"""Side in pixels to which photographs are brought."""

FROM_PHOTOGRAPHS = 0.65
"""Share of the backgrounds, where there are photographs."""

GRAIN, STRONGEST = 1024, 7


@dataclass(frozen=True)
class Backgrounds:
    """Where backgrounds come from; no photographs = all are procedural."""

    photographs: tuple[Image.Image, ...]

    @cached_property
    def fingerprint(self) -> str:
        """Changes with every photograph."""
        digest = hashlib.sha256()
        for photograph in self.photographs:
            digest.update(repr(photograph.size).encode())
            digest.update(photograph.tobytes())
        return digest.hexdigest()

    @cached_property
    def grain(self) -> tuple[Image.Image, ...]:
        """Noise of so many levels, of which each picture takes a part: GRAIN x GRAIN, 128 = none."""
        noise = np.random.default_rng(0).standard_normal((GRAIN, GRAIN), np.float32)
        levels = ((128 + strength * noise).clip(0, 255).astype(np.uint8) for strength in range(STRONGEST + 1))
        return tuple(Image.fromarray(np.repeat(level[..., None], 3, 2)) for level in levels)

    def make(self, rng: Random, canvas: int) -> Image.Image:
        """One background, RGB."""
        if self.photographs and rng.random() < FROM_PHOTOGRAPHS:
            return _cropped(rng.choice(self.photographs), rng, canvas)
        return _gradient(rng, canvas)

    def grained(self, image: Image.Image, rng: Random, strength: int) -> Image.Image:
        """With noise of so many levels, as of a sensor."""
        side = image.width
        top, left = rng.randrange(GRAIN - side + 1), rng.randrange(GRAIN - side + 1)
        part = self.grain[strength].crop((left, top, left + side, top + side))
        return ImageChops.add(image, part, offset=-128)


def open_backgrounds(folder: str | None) -> Backgrounds:
    """The photographs of a folder; without one, those of scikit-image; where that is not installed, none.

    Raises:
        AstreaError: no such folder, no picture in it, or one that cannot be read.
    """
    if folder is None:
        if find_spec("skimage") is None:
            return Backgrounds(())
        data = Path(str(files("skimage") / "data"))
        return Backgrounds(tuple(_small(data / name) for name in TEXTURES if is_file(data / name)))
    root = Path(folder).expanduser()
    if not is_folder(root):
        raise AstreaError(f"world.options.backgrounds: {folder} is no folder", "give a folder of photographs")
    unreadable: list[AstreaError] = []
    paths = sorted(files_below(root, lambda _, error: unreadable.append(error)))
    found = tuple(_small(path) for path in paths if path.suffix.lower() in ENDINGS)
    if unreadable:
        raise unreadable[0]
    if not found:
        raise AstreaError(f"world.options.backgrounds: no picture in {folder}", "give a folder of photographs")
    return Backgrounds(found)


def _small(path: Path) -> Image.Image:
    image = load_image(path)
    image.thumbnail((MOST, MOST), Image.Resampling.LANCZOS)
    return image


def _cropped(photograph: Image.Image, rng: Random, canvas: int) -> Image.Image:
    """A square part of a photograph in other light, contrast and colour."""
    shortest = min(photograph.size)
    side = rng.randint(max(1, shortest // 3), shortest)
    left, top = rng.randint(0, photograph.width - side), rng.randint(0, photograph.height - side)
    part = left, top, left + side, top + side
    image = photograph.resize((canvas, canvas), Image.Resampling.BILINEAR, part, reducing_gap=2.0)
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.4, 1.0))
    image = ImageEnhance.Color(image).enhance(rng.uniform(0.2, 1.2))
    tint = tuple(rng.randint(60, 230) for _ in range(3))
    image = Image.blend(image, Image.new("RGB", image.size, tint), rng.uniform(0.0, 0.35))
    if rng.random() < 0.4:
        image = image.filter(ImageFilter.BoxBlur(rng.uniform(0.5, 4.0) * canvas / 320))
    return image


def _gradient(rng: Random, canvas: int) -> Image.Image:
    """Two colours that change into one another in some direction, with soft patches: a wall, a floor, a sky."""
    corners = np.array([[rng.randint(50, 235) for _ in range(3)] for _ in range(2)], np.float32)
    mix = np.array([[rng.random() for _ in range(2)] for _ in range(2)], np.float32)
    coarse = (corners[0] + mix[..., None] * (corners[1] - corners[0])).astype(np.uint8)
    image = Image.fromarray(coarse).resize((canvas, canvas), Image.Resampling.BILINEAR)
    cells = rng.choice((3, 5, 9, 24))
    patches = np.random.default_rng(rng.getrandbits(32)).integers(90, 166, (cells, cells, 1), np.uint8)
    soft = Image.fromarray(np.repeat(patches, 3, 2)).resize((canvas, canvas), Image.Resampling.BICUBIC)
    return Image.blend(image, soft, rng.uniform(0.05, 0.3))
