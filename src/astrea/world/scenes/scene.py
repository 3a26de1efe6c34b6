"""What a scene is: its plan (`SceneSpec`), and the drawn picture with the full truth (`Scene`)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class ObjectSpec:
    """One pictogram to draw: indices into KINDS, COLOURS, SIZES and the top-left corner of its box in pixels."""

    kind: int
    colour: int
    size: int
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class SceneSpec:
    """Everything needed to draw a scene again. Later objects cover earlier ones; the word plate lies on top.

    condition: an index into CONDITIONS. second: one more that holds at the same time; 0 = none. object_canvas: side in
    pixels of the canvas that pictograms and print are sized for; 0 = this one.
    """

    seed: int
    canvas: int
    objects: tuple[ObjectSpec, ...]
    word: str | None
    word_xy: tuple[int, int]
    condition: int
    second: int = field(default=0, repr=False)
    object_canvas: int = field(default=0, repr=False)

    @property
    def sized_for(self) -> int:
        """Side in pixels of the canvas that pictograms and print are sized for."""
        return self.object_canvas or self.canvas


@dataclass(frozen=True, slots=True)
class SceneObject:
    """The truth about one pictogram.

    box: (x0, y0, x1, y1) pixels, half open, of the *whole* glyph, also where it is covered.
    area: visible pixels. occlusion: hidden share of the glyph's own pixels, 0..1.
    centroid: (x, y) mean of the visible pixels.
    """

    kind: int
    colour: int
    size: int
    box: tuple[int, int, int, int]
    area: int
    occlusion: float
    centroid: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawn scene with full truth.

    image: (H, W, 3) uint8. instances: (H, W) uint8, 0 = background, i + 1 = visible pixels of objects[i],
    255 = word plate. word_box: plate (x0, y0, x1, y1) or None.
    """

    spec: SceneSpec
    image: np.ndarray
    instances: np.ndarray
    objects: tuple[SceneObject, ...]
    word: str | None
    word_box: tuple[int, int, int, int] | None
    condition: int

    def mask(self, index: int) -> np.ndarray:
        """Visible pixels of ``objects[index]``: (H, W) bool."""
        found: np.ndarray = self.instances == index + 1
        return found
