"""Scenes of whatever built-in world as people look at them: on a contact sheet, or as pictures with questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from astrea.common.errors import AstreaError
from astrea.recipes.recipe import World
from astrea.world.dataset import scene_at
from astrea.world.photographs.compositions import Compositions, open_compositions
from astrea.world.photographs.plan import SPLITS as PHOTOGRAPH_SPLITS
from astrea.world.photographs.scene import PhotoScene
from astrea.world.scenes.draw import SPLITS
from astrea.world.scenes.questions import DRAWN, Templates
from astrea.world.scenes.scene import Scene
from astrea.world.scenes.vocabulary import COLOUR_RGB, COLOURS, CONDITIONS, KINDS
from astrea.world.sheet import Tile

PLATE = (90, 220, 230)
"""Frames what a sign or a plate with a word takes."""

THING = (90, 230, 120)


@dataclass(frozen=True, slots=True)
class Gallery:
    """A world to look at. scene: one of a split. picture: of a scene. tile: the same with its truth. templates: what is
    asked. columns, scale: of a contact sheet."""

    splits: Sequence[str]
    scene: Callable[[str, int], Any]
    picture: Callable[[Any], Image.Image]
    tile: Callable[[Any], Tile]
    templates: Callable[[str], Templates]
    columns: int
    scale: int

    def scenes(self, split: str, count: int) -> list[Any]:
        """The first scenes of a split.

        Raises:
            AstreaError: no such split.
        """
        if split not in self.splits:
            raise AstreaError(f"unknown split {split!r}", f"choose one of {', '.join(self.splits)}")
        return [self.scene(split, index) for index in range(count)]


def open_gallery(world: World) -> Gallery:
    """A built-in world.

    Raises:
        AstreaError: the world is none of those, or its pictures cannot be had.
    """
    if world.kind == "drawn":
        return Gallery(
            SPLITS, lambda split, index: scene_at(split, index, world), drawn_picture, drawn_tile, lambda _: DRAWN, 8, 3
        )
    if world.kind == "photographs":
        made = open_compositions(world)
        return Gallery(
            PHOTOGRAPH_SPLITS,
            made.scene,
            lambda scene: photograph_picture(made, scene),
            lambda scene: photograph_tile(made, scene),
            lambda split: made.new_questions if split == "new" else made.questions,
            4,
            1,
        )
    raise AstreaError(f"scenes of the world {world.kind!r} cannot be shown", "choose drawn or photographs")


def drawn_picture(scene: Scene) -> Image.Image:
    """A drawn scene."""
    return Image.fromarray(scene.image)


def drawn_tile(scene: Scene) -> Tile:
    """A drawn scene with every object framed in its own colour."""
    frames = [(item.box, COLOUR_RGB[item.colour]) for item in scene.objects]
    if scene.word_box is not None:
        frames.append((scene.word_box, PLATE))
    word = f', "{scene.word}"' if scene.word else ""
    labels = [f"{COLOURS[item.colour]} {KINDS[item.kind].name}" for item in scene.objects]
    return Tile(drawn_picture(scene), frames, CONDITIONS[scene.condition] + word, labels)


def photograph_picture(made: Compositions, scene: PhotoScene) -> Image.Image:
    """A composition."""
    return Image.fromarray(made.picture(scene))


def photograph_tile(made: Compositions, scene: PhotoScene) -> Tile:
    """A composition with every thing framed, its colour, category and size told."""
    frames = [(thing.box, THING) for thing in scene.things]
    if scene.sign_box is not None:
        frames.append((scene.sign_box, PLATE))
    word = f', "{scene.word}"' if scene.word else ""
    side = scene.spec.canvas
    labels = [
        f"{f'{thing.colour} ' if thing.colour else ''}{thing.name} ({thing.category}, {thing.area / side**2:.0%}"
        f"{f', {thing.occlusion:.0%} covered' if thing.occlusion > 0.02 else ''})"
        for thing in scene.things
    ]
    return Tile(photograph_picture(made, scene), frames, made.condition(scene) + word, labels)
