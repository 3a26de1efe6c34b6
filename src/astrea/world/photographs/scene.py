"""What a composition is: its plan (`PhotoSpec`), and the truth about what it shows (`PhotoScene`)."""

from __future__ import annotations

from dataclasses import dataclass

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1) pixels, half open"""


@dataclass(frozen=True, slots=True)
class ThingSpec:
    """One cut-out to paste: ``cutout`` is its number in the catalogue. paint: a colour to give it, or None. side: the
    square root of its opaque area, in pixels. angle: degrees. x, y: the top left corner of its box. light: factor of
    its brightness."""

    cutout: int
    paint: str | None
    flipped: bool
    angle: float
    side: float
    x: int
    y: int
    light: float


@dataclass(frozen=True, slots=True)
class SignSpec:
    """A printed sign: its word, the height of its letters in pixels, its top left corner, its style (a number)."""

    word: str
    height: int
    x: int
    y: int
    style: int


@dataclass(frozen=True, slots=True)
class PhotoSpec:
    """Everything needed to paint a composition again. Later things cover earlier ones; the sign lies on top.

    seed: of the background, the shadows and the noise. blur: radius in pixels that the finished picture is blurred by.
    """

    seed: int
    canvas: int
    things: tuple[ThingSpec, ...]
    sign: SignSpec | None
    blur: float


@dataclass(frozen=True, slots=True)
class Thing:
    """The truth about one thing.

    colour: that nearly all of it has, or None. painted: whether the colour was given to it. box: of the whole thing,
    also where it is covered. area: visible pixels. occlusion: covered share of its own pixels, 0..1. centroid: (x, y),
    the mean of its visible pixels.
    """

    cutout: int
    name: str
    category: str
    colour: str | None
    painted: bool
    box: Box
    area: int
    occlusion: float
    centroid: tuple[float, float]


@dataclass(frozen=True, slots=True)
class PhotoScene:
    """A composition with its truth. Its pixels and its masks take memory, so they are made when they are asked for:
    `astrea.world.photographs.draw.Studio`."""

    spec: PhotoSpec
    things: tuple[Thing, ...]
    sign_box: Box | None

    @property
    def word(self) -> str | None:
        """What the sign says."""
        return None if self.spec.sign is None else self.spec.sign.word
