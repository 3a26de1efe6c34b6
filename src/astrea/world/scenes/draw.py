"""Drawing scenes with their full truth, and the splits they come in.

All pixels are integer arithmetic, so a scene is bit for bit the same on every platform.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from random import Random

import numpy as np

from astrea.world.scenes.atlas import letter, sprite
from astrea.world.scenes.plan import difficulty_of, plan_scene, plate_size, swap_attribute
from astrea.world.scenes.scene import Scene, SceneObject, SceneSpec
from astrea.world.scenes.textures import CLUTTER_LAYERS, PATTERNS, below, clutter, noise, patterns
from astrea.world.scenes.vocabulary import COLOUR_RGB, CONDITIONS

__all__ = [
    "SPLITS",
    "draw_scene",
    "make_scene",
    "plan_scene",
    "split_scene",
    "split_seed",
    "swap_attribute",
]

SPLITS: tuple[str, ...] = ("train", "validation", "test", "novel")
PLATE = 255
"""Value of the word plate in `Scene.instances`."""

_PLATE_RGB = np.array((226, 222, 208), dtype=np.int32)
_PLATE_EDGE_RGB = np.array((120, 116, 106), dtype=np.int32)
_LETTER_RGB = np.array((24, 22, 30), dtype=np.int32)
_COLOUR_RGB = np.array(COLOUR_RGB, dtype=np.int32)


def split_seed(split: str, index: int, seed: int) -> int:
    """The plan's seed of one scene of a split, in 0..2**52 - 1.

    Two splits never share one (the split is in its lowest two bits); two run seeds or indices do not either, as far as
    50 bits of hash can tell them apart.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; there are {', '.join(SPLITS)}")
    digest = hashlib.blake2b(f"{split}/{seed}/{index}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 14) * len(SPLITS) + SPLITS.index(split)


def split_scene(
    split: str,
    index: int,
    seed: int,
    *,
    canvas: int = 64,
    difficulty: float = 0.5,
    max_objects: int = 6,
    min_objects: int = 1,
    object_canvas: int | None = None,
    clean: float | None = None,
    pairs: float = 0.0,
) -> Scene:
    """Scene ``index`` of a split. 'novel' has a held-out kind x colour pair in every scene, the others have none. See
    `plan_scene`."""
    return make_scene(
        split_seed(split, index, seed),
        canvas=canvas,
        require_novel=split == "novel",
        difficulty=difficulty,
        max_objects=max_objects,
        min_objects=min_objects,
        object_canvas=object_canvas,
        clean=clean,
        pairs=pairs,
    )


def make_scene(
    seed: int,
    *,
    canvas: int = 64,
    require_novel: bool = False,
    difficulty: float = 0.5,
    max_objects: int = 6,
    min_objects: int = 1,
    object_canvas: int | None = None,
    clean: float | None = None,
    pairs: float = 0.0,
) -> Scene:
    """Plan and draw the scene of this seed (see `plan_scene`)."""
    return draw_scene(
        plan_scene(
            seed,
            canvas=canvas,
            require_novel=require_novel,
            difficulty=difficulty,
            max_objects=max_objects,
            min_objects=min_objects,
            object_canvas=object_canvas,
            clean=clean,
            pairs=pairs,
        )
    )


def draw_scene(spec: SceneSpec) -> Scene:
    """Draw a plan. The same plan always gives the same pixels."""
    canvas, conditions = spec.canvas, {CONDITIONS[spec.condition], CONDITIONS[spec.second]}
    # All random numbers are drawn in a fixed order that does not depend on what the objects are: a swapped scene
    # keeps its background, lighting and noise.
    rng = Random(2 * spec.seed + 1)
    percent = difficulty_of(spec)
    image = _background(rng, canvas, spec.sized_for)
    if "clutter" in conditions:
        _lay_clutter(image, rng, spec.sized_for, 140 + percent * 2, dense=True)
    instances = np.zeros((canvas, canvas), dtype=np.uint8)
    boxes = [_lay_object(image, instances, spec, index, below(rng, 41)) for index in range(len(spec.objects))]
    word_box = _lay_word(image, instances, spec)
    if "clutter" in conditions:
        _lay_clutter(image, rng, spec.sized_for, 140 + percent * 2, dense=False)
    if "night" in conditions:
        image = _night(image, rng, percent)
    if "blur" in conditions:
        image = _blur(image, spec.sized_for * (100 + 2 * percent) // 6400)
    if "noise" in conditions:
        image += (_cut(noise(canvas), rng, canvas) * (56 + percent * 2 // 3)) >> 8
    np.clip(image, 0, 255, out=image)
    return Scene(
        spec=spec,
        image=image.astype(np.uint8),
        instances=instances,
        objects=_truth(spec, instances, boxes),
        word=spec.word,
        word_box=word_box,
        condition=spec.condition,
    )


def _background(rng: Random, canvas: int, unit: int) -> np.ndarray:
    """Two muted colours mixed by a pattern: (canvas, canvas, 3) int32."""
    pattern = patterns(canvas, unit)[below(rng, PATTERNS)]
    turn = below(rng, 8)
    if turn & 1:
        pattern = pattern[::-1]
    if turn & 2:
        pattern = pattern[:, ::-1]
    if turn & 4:
        pattern = pattern.transpose(1, 0, 2)
    low, contrast, tint = 28 + below(rng, 50), 24 + below(rng, 46), [below(rng, 25) - 12 for _ in range(6)]
    first = np.array([low + part for part in tint[:3]], dtype=np.int32)
    span = np.array([contrast + part for part in tint[3:]], dtype=np.int32)
    found: np.ndarray = ((pattern * span) >> 8) + first
    return found


def _lay_object(
    image: np.ndarray, instances: np.ndarray, spec: SceneSpec, index: int, brightness: int
) -> tuple[int, int, int, int]:
    """Blend object ``index`` into the picture and the instance map; returns its box."""
    item, canvas = spec.objects[index], spec.canvas
    shape = sprite(item.kind, item.size, spec.sized_for)
    box = item.x, item.y, item.x + shape.width, item.y + shape.height
    if item.x < 0 or item.y < 0 or max(box) > canvas:
        raise ValueError(f"object {index} with box {box} lies outside the canvas of {canvas} pixels")
    colour = _COLOUR_RGB[item.colour] * (236 + brightness) >> 8
    # The sprite has a rim of one pixel, which is cut off where the object touches the canvas' edge.
    left, top = max(item.x - 1, 0), max(item.y - 1, 0)
    right, bottom = min(box[2] + 1, canvas), min(box[3] + 1, canvas)
    cut = (slice(top - item.y + 1, bottom - item.y + 1), slice(left - item.x + 1, right - item.x + 1))
    region = image[top:bottom, left:right]
    region *= shape.keep[cut]
    region += shape.ink[cut] * colour
    region >>= 8
    np.putmask(instances[box[1] : box[3], box[0] : box[2]], shape.mask, index + 1)
    return box


@lru_cache(maxsize=256)
def _plate(word: str, canvas: int) -> np.ndarray:
    """The printed plate of a word: (height, width, 3) int32."""
    width, height = plate_size(word, canvas)
    pitch, margin, edge = canvas // 8, canvas // 32, max(1, canvas // 64)
    plate = np.empty((height, width, 3), dtype=np.int32)
    plate[:] = _PLATE_EDGE_RGB
    plate[edge:-edge, edge:-edge] = _PLATE_RGB
    for index, character in enumerate(word.upper()):
        cover = letter(character, pitch, pitch - max(1, canvas // 64))
        left = margin + index * pitch + (pitch - margin // 2 - cover.shape[1]) // 2
        region = plate[margin : margin + pitch, left : left + cover.shape[1]]
        region += (_LETTER_RGB - region) * cover[:, :, None].astype(np.int32) // 255
    plate.setflags(write=False)
    return plate


def _lay_word(image: np.ndarray, instances: np.ndarray, spec: SceneSpec) -> tuple[int, int, int, int] | None:
    """Lay the word plate on top; returns its box."""
    if spec.word is None:
        return None
    (x, y), (width, height) = spec.word_xy, plate_size(spec.word, spec.sized_for)
    if x < 0 or y < 0 or x + width > spec.canvas or y + height > spec.canvas:
        raise ValueError(f"the word plate at {spec.word_xy} lies outside the canvas of {spec.canvas} pixels")
    image[y : y + height, x : x + width] = _plate(spec.word, spec.sized_for)
    instances[y : y + height, x : x + width] = PLATE
    return x, y, x + width, y + height


def _cut(bank: np.ndarray, rng: Random, canvas: int) -> np.ndarray:
    """A window of ``canvas`` x ``canvas`` at a random place of a bank twice as large."""
    top, left = below(rng, canvas + 1), below(rng, canvas + 1)
    return bank[top : top + canvas, left : left + canvas]


def _lay_clutter(image: np.ndarray, rng: Random, unit: int, strength: int, *, dense: bool) -> None:
    """Blend distracting strokes and fragments into the picture; ``strength`` of 256 scales their opacity."""
    canvas = image.shape[0]
    colours, opacity = clutter(canvas, unit, dense)
    layer = below(rng, CLUTTER_LAYERS)
    top, left = below(rng, canvas + 1), below(rng, canvas + 1)
    window = (layer, slice(top, top + canvas), slice(left, left + canvas))
    image += ((colours[window] - image) * (opacity[window] * strength >> 8)) >> 8


_NIGHT_GAIN = np.array((215, 235, 275), dtype=np.int32)
_NIGHT_GLOW = np.array((3, 5, 14), dtype=np.int32)


def _night(image: np.ndarray, rng: Random, percent: int) -> np.ndarray:
    """Little light, bluish, with some sensor noise: without noise, darkening alone would lose nothing."""
    gain = _NIGHT_GAIN * (108 - percent // 2) >> 8
    grain = _cut(noise(image.shape[0]), rng, image.shape[0])
    found: np.ndarray = ((image * gain + grain * (8 + percent // 10)) >> 8) + _NIGHT_GLOW
    return found


def _blur(image: np.ndarray, reach: int) -> np.ndarray:
    """Box blur, twice, the edge repeated: a pixel is spread ``reach`` pixels far in all (3: boxes of 5 and of 3)."""
    for radius in ((reach + 1) // 2, reach // 2):
        side = 2 * radius + 1
        for axis in range(2):
            # Running sums: each box is the difference of two of them, hence the extra line at the start.
            padding = [(radius + 1, radius) if axis == each else (0, 0) for each in range(3)]
            total = np.pad(image, padding, "edge").cumsum(axis=axis, dtype=np.int32)
            spread = total[side:] - total[:-side] if axis == 0 else total[:, side:] - total[:, :-side]
            image = (spread + radius) // side
    return image


@lru_cache(maxsize=4)
def _positions(canvas: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of every pixel in reading order, each (canvas * canvas,) float64 (whole numbers, so sums are exact)."""
    ys, xs = np.divmod(np.arange(canvas * canvas), canvas)
    return xs.astype(np.float64), ys.astype(np.float64)


def _truth(spec: SceneSpec, instances: np.ndarray, boxes: list[tuple[int, int, int, int]]) -> tuple[SceneObject, ...]:
    """What is to be known of each object once everything is laid out."""
    flat = instances.ravel()
    xs, ys = _positions(spec.canvas)
    length = len(boxes) + 1
    areas = np.bincount(flat, minlength=length).tolist()
    sums_x = np.bincount(flat, weights=xs, minlength=length).tolist()
    sums_y = np.bincount(flat, weights=ys, minlength=length).tolist()
    objects = []
    for index, (item, box) in enumerate(zip(spec.objects, boxes, strict=True), start=1):
        own, area = sprite(item.kind, item.size, spec.sized_for).area, areas[index]
        centroid = (
            (sums_x[index] / area, sums_y[index] / area)
            if area  # wholly hidden, which no planned scene has: the middle of where it would be
            else ((box[0] + box[2] - 1) / 2, (box[1] + box[3] - 1) / 2)
        )
        objects.append(SceneObject(item.kind, item.colour, item.size, box, area, 1 - area / own, centroid))
    return tuple(objects)
