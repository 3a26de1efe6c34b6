"""Planning compositions: which things, how large, where, in which colours, with which sign."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

import numpy as np

from astrea.world.photographs.colours import PAINTS
from astrea.world.photographs.draw import Studio
from astrea.world.photographs.options import PhotographOptions
from astrea.world.photographs.scene import PhotoSpec, SignSpec, ThingSpec
from astrea.world.photographs.signs import STYLES, WORDS, plate

SPLITS: tuple[str, ...] = ("train", "validation", "test", "novel", "new")
"""novel: known things, two of which no training picture shows together. new: things that none shows."""

COUNTS = (0.2, 0.24, 0.2, 0.14, 0.12, 0.1)
"""How often a picture has one thing, two, ..."""

SHRINK = (1.0, 0.85, 0.7, 0.6, 0.52, 0.46)
"""Of the largest size, by the number of things."""

APART_EVERY = 8
"""One pair of names in so many is never shown together in training."""

BY_CATEGORY, REPEATED, ALL_PAINTED, ALIKE_PAINT, BLURRED, FLIPPED, TURNED = 0.25, 0.3, 0.2, 0.4, 0.3, 0.5, 0.6
MOST_TURN = 15.0
MOST_HIDDEN = 0.4
TRIES = 24


@lru_cache(maxsize=1 << 17)
def apart(a: str, b: str) -> bool:
    """Whether no training picture shows these two things together."""
    digest = hashlib.blake2b("/".join(sorted((a, b))).encode(), digest_size=4).digest()
    return a != b and int.from_bytes(digest, "little") % APART_EVERY == 0


@dataclass(frozen=True)
class Planner:
    """Plans of the compositions of every split."""

    studio: Studio
    options: PhotographOptions
    canvas: int
    seed: int

    def plan(self, split: str, index: int) -> PhotoSpec:
        """Plan ``index`` of a split, the same one whenever it is asked for."""
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; there are {', '.join(SPLITS)}")
        rng = Random(f"photographs/{split}/{self.seed}/{index}")
        names = self._names(split, rng)
        paints = self._paints(len(names), rng)
        overlapping = rng.random() < self.options.overlap
        layout = _Layout(self, overlapping, rng)
        high = self.options.largest * SHRINK[len(names) - 1]
        low = min(self.options.smallest, high)
        for name, paint in zip(names, paints, strict=True):
            layout.add(name, paint, self.canvas * low * (high / low) ** rng.random())
        sign = layout.sign() if rng.random() < self.options.signs else None
        blur = rng.uniform(0.6, 1.6) * self.canvas / 320 if rng.random() < BLURRED else 0.0
        return PhotoSpec(rng.getrandbits(48), self.canvas, tuple(layout.things), sign, round(blur, 2))

    def _names(self, split: str, rng: Random) -> list[str]:
        catalogue = self.studio.catalogue
        count = rng.choices(range(1, self.options.max_things + 1), COUNTS[: self.options.max_things])[0]
        known, new = catalogue.trained, catalogue.new
        if split == "novel":
            count = max(2, count)
            first = rng.choice(known)
            others = [name for name in known if apart(first, name) and not catalogue.names.clash(first, name)]
            chosen = [first, rng.choice(others)] if others else [first]
        else:
            chosen = [rng.choice(new) if split == "new" and new else self._any(known, rng)]
        if count > len(chosen) and rng.random() < REPEATED:
            chosen += [chosen[0]] * rng.randint(1, min(3, count - len(chosen)))
        for _ in range(8 * count):
            if len(chosen) >= count:
                break
            name = rng.choice(new) if split == "new" and new and rng.random() < 0.5 else self._any(known, rng)
            if all(self._together(name, other, split) for other in chosen):
                chosen.append(name)
        rng.shuffle(chosen)
        return chosen

    def _any(self, known: tuple[str, ...], rng: Random) -> str:
        """Some of the things by category first, so that the small ones are seen, too."""
        if rng.random() >= BY_CATEGORY:
            return rng.choice(known)
        categories = self.studio.catalogue.categories
        category = rng.choice(sorted({categories[name] for name in known}))
        return rng.choice([name for name in known if categories[name] == category])

    def _together(self, a: str, b: str, split: str) -> bool:
        if a == b or self.studio.catalogue.names.clash(a, b):
            return False
        return split in ("novel", "new") or not apart(a, b)

    def _paints(self, count: int, rng: Random) -> list[str | None]:
        """Colours to give; any of them is as likely for whatever thing, so that names tell nothing about them."""
        if rng.random() < ALL_PAINTED * bool(self.options.recoloured):
            found = [rng.choice(list(PAINTS)) for _ in range(count)]
            return [found[0] if rng.random() < ALIKE_PAINT else paint for paint in found]
        return [rng.choice(list(PAINTS)) if rng.random() < self.options.recoloured else None for _ in range(count)]

    def thing(self, name: str, paint: str | None, side: float, rng: Random) -> ThingSpec:
        """A thing of this name, not yet in its place."""
        catalogue = self.studio.catalogue
        cutout = catalogue.number[rng.choice(catalogue.of[name])]
        if paint is not None and self.studio.colour(cutout, paint) != paint:
            paint = None  # its pixels do not take this colour
        angle = round(rng.uniform(-MOST_TURN, MOST_TURN), 1) if rng.random() < TURNED else 0.0
        light = round(rng.uniform(0.82, 1.12), 2)
        return ThingSpec(cutout, paint, rng.random() < FLIPPED, angle, round(side, 1), 0, 0, light)

    def size(self, thing: ThingSpec) -> tuple[int, int]:
        """(height, width) of a thing's box."""
        mask = self.studio.outline(thing.cutout, thing.flipped, thing.angle, thing.side, self.canvas).mask
        return mask.shape[0], mask.shape[1]

    def swapped(self, spec: PhotoSpec, rng: Random) -> PhotoSpec:
        """The same composition with one attribute changed: what a thing is, its colour, two things' places, or the
        sign's word; its background, light and grain stay."""
        ways = ["name", "colour", *(["places"] if len(spec.things) > 1 else []), *(["word"] if spec.sign else [])]
        way = rng.choice(ways)
        if way == "word" and spec.sign is not None:
            same = [word for word in WORDS if len(word) == len(spec.sign.word) and word != spec.sign.word]
            return replace(spec, sign=replace(spec.sign, word=rng.choice(same)))
        things = list(spec.things)
        at = rng.randrange(len(things))
        if way == "places":
            other = rng.choice([i for i in range(len(things)) if i != at])
            things[at], things[other] = self._moved(things[at], things[other]), self._moved(things[other], things[at])
        elif way == "colour":
            paint = rng.choice([each for each in PAINTS if each != things[at].paint])
            if self.studio.colour(things[at].cutout, paint) == paint:
                things[at] = replace(things[at], paint=paint)
        else:
            catalogue = self.studio.catalogue
            here = [catalogue.cutouts[thing.cutout].name for thing in things]
            others = [name for name in catalogue.trained if all(self._together(name, each, "train") for each in here)]
            if others:
                made = self.thing(rng.choice(others), things[at].paint, things[at].side, rng)
                things[at] = self._moved(made, things[at])
        return replace(spec, things=tuple(things))

    def _moved(self, thing: ThingSpec, to: ThingSpec) -> ThingSpec:
        """A thing with its middle where another one's is, as far as it fits."""
        height, width = self.size(thing)
        there = self.size(to)
        x = to.x + (there[1] - width) // 2
        y = to.y + (there[0] - height) // 2
        return replace(thing, x=min(max(0, x), self.canvas - width), y=min(max(0, y), self.canvas - height))


class _Layout:
    """Finds places for things one after another."""

    def __init__(self, planner: Planner, overlapping: bool, rng: Random) -> None:
        self.planner, self.overlapping, self.rng = planner, overlapping, rng
        self.things: list[ThingSpec] = []
        self.boxes: list[tuple[int, int, int, int]] = []
        self.instances = np.zeros((planner.canvas, planner.canvas), np.uint8)
        self.areas: list[int] = []
        self.visible: list[int] = []

    def add(self, name: str, paint: str | None, side: float) -> None:
        """One more thing, smaller where it does not fit; left out where even that does not help."""
        thing = self.planner.thing(name, paint, side, self.rng)
        for _ in range(5):
            height, width = self.planner.size(thing)
            for _ in range(TRIES):
                x, y = self._anywhere(width, height)
                if self._free((x, y, x + width, y + height)) and self._lay(replace(thing, x=x, y=y)):
                    return
            thing = replace(thing, side=round(thing.side * 0.8, 1))

    def _anywhere(self, width: int, height: int) -> tuple[int, int]:
        canvas = self.planner.canvas
        return self.rng.randint(0, canvas - width), self.rng.randint(0, canvas - height)

    def _free(self, box: tuple[int, int, int, int]) -> bool:
        if self.overlapping:
            return True
        return not any(
            min(box[2], other[2]) > max(box[0], other[0]) and min(box[3], other[3]) > max(box[1], other[1])
            for other in self.boxes
        )

    def _lay(self, thing: ThingSpec) -> bool:
        """Whether everything else stays visible enough; then it is laid."""
        mask = self.planner.studio.outline(
            thing.cutout, thing.flipped, thing.angle, thing.side, self.planner.canvas
        ).mask
        box = thing.x, thing.y, thing.x + mask.shape[1], thing.y + mask.shape[0]
        region = self.instances[box[1] : box[3], box[0] : box[2]]
        covered = np.bincount(region[mask], minlength=len(self.areas) + 1)[1:]
        left = [seen - int(lost) for seen, lost in zip(self.visible, covered, strict=True)]
        if any(seen < (1 - MOST_HIDDEN) * area for seen, area in zip(left, self.areas, strict=True)):
            return False
        np.putmask(region, mask, len(self.things) + 1)
        self.things.append(thing)
        self.boxes.append(box)
        self.areas.append(int(mask.sum()))
        self.visible = [*left, self.areas[-1]]
        return True

    def sign(self) -> SignSpec | None:
        """A sign where it covers nothing; None where there is no room."""
        canvas, rng = self.planner.canvas, self.rng
        word, style = rng.choice(WORDS), rng.randrange(2 * len(STYLES))
        height = round(canvas * rng.uniform(0.055, 0.1))
        width, tall = plate(word, height, style).size
        if width > canvas or tall > canvas:
            return None
        for _ in range(2 * TRIES):
            x, y = self._anywhere(width, tall)
            if not self.instances[y : y + tall, x : x + width].any():
                return SignSpec(word, height, x, y, style)
        return None
