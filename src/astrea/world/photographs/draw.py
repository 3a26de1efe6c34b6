"""Compositions: from a plan to the truth about it, cheaply, and to its pixels.

The same plan gives the same pixels wherever the same pictures and the same Pillow are installed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from math import cos, radians, sin
from random import Random

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from astrea.world.photographs.backgrounds import STRONGEST, Backgrounds
from astrea.world.photographs.colours import dominant, painted
from astrea.world.photographs.cutouts import Catalogue
from astrea.world.photographs.scene import PhotoScene, PhotoSpec, SignSpec, Thing, ThingSpec
from astrea.world.photographs.signs import plate

SIGN = 255
"""Value of the sign in `Studio.instances`."""

OPAQUE = 128
"""Opacity, 0..255, from which on a pixel belongs to its thing."""

GAP = 2.0
"""How exact making smaller is; see Pillow."""

WIDEST = 0.92
"""Longest side of a thing as a share of the canvas."""


@dataclass(frozen=True)
class Outline:
    """A cut-out in its final shape. mask: (h, w) bool, tight. size: (width, height) it is resized to before it is
    turned. crop: what is kept of it then."""

    mask: np.ndarray
    size: tuple[int, int]
    crop: tuple[int, int, int, int]


@dataclass(frozen=True)
class Studio:
    """Cut-outs and backgrounds, and what is made of them."""

    catalogue: Catalogue
    backgrounds: Backgrounds
    _cached: dict[str, object] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        self._cached["outline"] = lru_cache(maxsize=64)(self._outline)
        self._cached["colour"] = lru_cache(maxsize=8192)(self._colour)
        self._cached["share"] = lru_cache(maxsize=4096)(self._opaque_share)

    def outline(self, cutout: int, flipped: bool, angle: float, side: float, canvas: int) -> Outline:
        """See `Outline`."""
        return self._cached["outline"](cutout, flipped, angle, side, canvas)  # type: ignore[operator,no-any-return]

    def colour(self, cutout: int, paint: str | None) -> str | None:
        """The colour that a cut-out has, or has once it is painted."""
        return self._cached["colour"](cutout, paint)  # type: ignore[operator,no-any-return]

    def picture(self, cutout: int) -> Image.Image:
        """The pixels of a cut-out, RGBA."""
        return self.catalogue.picture(self.catalogue.cutouts[cutout])

    def _colour(self, cutout: int, paint: str | None) -> str | None:
        image = self.picture(cutout).copy()
        image.thumbnail((96, 96), Image.Resampling.BOX)
        return dominant(image if paint is None else painted(image, paint))

    def _opaque_share(self, cutout: int) -> float:
        alpha = self.picture(cutout).getchannel("A")
        return max(0.02, sum(alpha.histogram()[OPAQUE:]) / (alpha.width * alpha.height))

    def _outline(self, cutout: int, flipped: bool, angle: float, side: float, canvas: int) -> Outline:
        alpha = self.picture(cutout).getchannel("A")
        share: float = self._cached["share"](cutout)  # type: ignore[operator]
        factor = side / (share * alpha.width * alpha.height) ** 0.5
        sine, cosine = abs(sin(radians(angle))), abs(cos(radians(angle)))
        turned = alpha.width * cosine + alpha.height * sine, alpha.width * sine + alpha.height * cosine
        factor = min(factor, WIDEST * canvas / max(turned))
        size = max(2, round(alpha.width * factor)), max(2, round(alpha.height * factor))
        shaped = _turned(alpha.resize(size, Image.Resampling.BILINEAR, reducing_gap=GAP), flipped, angle)
        mask = np.asarray(shaped) >= OPAQUE
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):  # too thin to be seen: what there is of it
            return Outline(np.ones((shaped.height, shaped.width), bool), size, (0, 0, *shaped.size))
        crop = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
        return Outline(mask[crop[1] : crop[3], crop[0] : crop[2]], size, crop)

    def instances(self, spec: PhotoSpec) -> np.ndarray:
        """Whose pixel each one is: (H, W) uint8; 0 = background, i + 1 = visible pixels of things[i], 255 = sign."""
        found = np.zeros((spec.canvas, spec.canvas), np.uint8)
        for number, thing in enumerate(spec.things, 1):
            mask = self._of(thing, spec.canvas).mask
            height, width = mask.shape
            np.putmask(found[thing.y : thing.y + height, thing.x : thing.x + width], mask, number)
        if (box := self._sign_box(spec)) is not None:
            found[box[1] : box[3], box[0] : box[2]] = SIGN
        return found

    def truth(self, spec: PhotoSpec) -> PhotoScene:
        """What a plan shows, without painting it."""
        instances = self.instances(spec)
        things = tuple(self._thing(thing, spec.canvas, instances, i) for i, thing in enumerate(spec.things, 1))
        return PhotoScene(spec, things, self._sign_box(spec))

    def _sign_box(self, spec: PhotoSpec) -> tuple[int, int, int, int] | None:
        if spec.sign is None:
            return None
        width, height = _plate_of(spec.sign).size
        return spec.sign.x, spec.sign.y, spec.sign.x + width, spec.sign.y + height

    def _of(self, thing: ThingSpec, canvas: int) -> Outline:
        return self.outline(thing.cutout, thing.flipped, thing.angle, thing.side, canvas)

    def _thing(self, spec: ThingSpec, canvas: int, instances: np.ndarray, number: int) -> Thing:
        mask = self._of(spec, canvas).mask
        box = spec.x, spec.y, spec.x + mask.shape[1], spec.y + mask.shape[0]
        rows, columns = np.nonzero(instances[box[1] : box[3], box[0] : box[2]] == number)
        area = len(rows)
        middle = (
            (box[0] + float(columns.mean()), box[1] + float(rows.mean()))
            if area
            else ((box[0] + box[2] - 1) / 2, (box[1] + box[3] - 1) / 2)
        )
        cutout = self.catalogue.cutouts[spec.cutout]
        return Thing(
            cutout=spec.cutout,
            name=cutout.name,
            category=self.catalogue.categories[cutout.name],
            colour=self.colour(spec.cutout, spec.paint),
            painted=spec.paint is not None,
            box=box,
            area=area,
            occlusion=1 - area / int(mask.sum()),
            centroid=middle,
        )

    def paint(self, spec: PhotoSpec) -> np.ndarray:
        """The picture of a plan: (canvas, canvas, 3) uint8."""
        # Its own numbers, in an order that does not depend on what is shown: a swapped scene keeps its background.
        rng = Random(spec.seed)
        image = self.backgrounds.make(rng, spec.canvas)
        fall = rng.uniform(-0.04, 0.04) * spec.canvas, rng.uniform(0.01, 0.05) * spec.canvas
        shade, light = rng.uniform(0.2, 0.55), rng.uniform(0.8, 1.12)
        warmth, grain = rng.uniform(-0.06, 0.06), rng.randint(0, STRONGEST)
        for thing in spec.things:
            self._paste(image, thing, fall, shade)
        if spec.sign is not None:
            image.paste(_plate_of(spec.sign), (spec.sign.x, spec.sign.y))
        image = _lit(image, light, warmth)
        if spec.blur:
            image = image.filter(ImageFilter.BoxBlur(spec.blur))
        return np.asarray(self.backgrounds.grained(image, rng, grain))

    def _paste(self, image: Image.Image, thing: ThingSpec, fall: tuple[float, float], shade: float) -> None:
        outline = self._of(thing, image.width)
        picture = self.picture(thing.cutout)
        sprite = picture.resize(outline.size, Image.Resampling.BILINEAR, reducing_gap=GAP)
        if thing.paint is not None:
            sprite = painted(sprite, thing.paint)
        sprite = _turned(sprite, thing.flipped, thing.angle)
        sprite = sprite.crop(outline.crop)
        alpha = sprite.getchannel("A")
        reach = max(2, image.width // 80)
        dark = ImageOps.expand(alpha, 3 * reach).filter(ImageFilter.BoxBlur(reach)).point(lambda a: int(a * shade))
        corner = int(thing.x + fall[0]) - 3 * reach, int(thing.y + fall[1]) - 3 * reach
        image.paste((0, 0, 0), (*corner, corner[0] + dark.width, corner[1] + dark.height), dark)
        image.paste(ImageEnhance.Brightness(sprite.convert("RGB")).enhance(thing.light), (thing.x, thing.y), alpha)


def _turned(image: Image.Image, flipped: bool, angle: float) -> Image.Image:
    if flipped:
        image = ImageOps.mirror(image)
    return image.rotate(angle, Image.Resampling.BILINEAR, expand=True) if angle else image


def _plate_of(sign: SignSpec) -> Image.Image:
    return plate(sign.word, sign.height, sign.style)


def _lit(image: Image.Image, light: float, warmth: float) -> Image.Image:
    """Brighter or darker, and warmer or colder, so little that colours keep their names."""
    gains = light * (1 + warmth), light, light * (1 - warmth)
    return image.point([min(255, round(level * gain)) for gain in gains for level in range(256)])
