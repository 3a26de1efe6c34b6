"""All compositions of one world: the scenes of every split, their pictures, and what may be asked about them.

Letters: B scenes, S side of the canvas.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import PIL
import torch
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.recipes.recipe import World
from astrea.world.photographs.backgrounds import open_backgrounds
from astrea.world.photographs.captions import caption_f1, captions
from astrea.world.photographs.cutouts import Catalogue, open_catalogue
from astrea.world.photographs.draw import Studio
from astrea.world.photographs.options import PhotographOptions, read_options
from astrea.world.photographs.plan import SPLITS, Planner
from astrea.world.photographs.scene import PhotoScene
from astrea.world.photographs.templates import templates
from astrea.world.photographs.view import PhotoView
from astrea.world.scenes.questions import Templates

FORMAT = 1
"""Of the pictures; to be raised whenever the code makes other ones of the same settings."""

CONDITIONS = ("clear", "blurred", "covered")


@dataclass(frozen=True)
class Compositions:
    """The scenes that a recipe's ``world`` describes."""

    planner: Planner
    studio: Studio

    @property
    def catalogue(self) -> Catalogue:
        """The cut-outs."""
        return self.studio.catalogue

    @property
    def options(self) -> PhotographOptions:
        """How they are put together."""
        return self.planner.options

    def scene(self, split: str, index: int) -> PhotoScene:
        """Scene ``index`` of a split.

        Raises:
            AstreaError: no such split.
        """
        if split not in SPLITS:
            raise AstreaError(f"unknown split {split!r}", f"choose one of {', '.join(SPLITS)}")
        return self.studio.truth(self.planner.plan(split, index))

    def scenes(self, split: str, count: int) -> Iterator[PhotoScene]:
        """The first ``count`` scenes of a split, made as they are asked for."""
        return (self.scene(split, index) for index in range(count))

    def swapped(self, scene: PhotoScene, rng: random.Random) -> PhotoScene:
        """The same scene with one attribute changed."""
        return self.studio.truth(self.planner.swapped(scene.spec, rng))

    def picture(self, scene: PhotoScene) -> np.ndarray:
        """A scene's picture: (S, S, 3) uint8."""
        return self.studio.paint(scene.spec)

    def pixels(self, scenes: Sequence[PhotoScene]) -> Tensor:
        """Pictures as (B, 3, S, S) float in 0..1."""
        stacked = torch.from_numpy(np.stack([self.picture(scene) for scene in scenes]))
        return stacked.permute(0, 3, 1, 2).float().div_(255)

    def view(self, scene: PhotoScene) -> PhotoView:
        """What is true of a scene."""
        return PhotoView(scene, self.catalogue, self.catalogue.trained)

    @cached_property
    def questions(self) -> Templates:
        """What is asked about scenes of known things."""
        return templates(self.catalogue)

    @cached_property
    def new_questions(self) -> Templates:
        """What is asked about things that no training picture shows."""
        return templates(self.catalogue, new=True)

    def references(self, scene: PhotoScene, number: int) -> list[str]:
        """Three captions; the first one is canonical."""
        return captions(self.view(scene), 3, number)

    def caption_score(self, text: str, scene: PhotoScene) -> float:
        """How good a caption is, 0..1; see `caption_f1`."""
        return caption_f1(text, self.view(scene), self.catalogue)

    def condition(self, scene: PhotoScene) -> str:
        """One of `CONDITIONS`: what makes a scene hard to see."""
        if any(thing.occlusion > 0.1 for thing in scene.things):
            return "covered"
        return "blurred" if scene.spec.blur else "clear"

    @cached_property
    def key(self) -> dict[str, Any]:
        """What all pictures follow from, JSON-able."""
        return {
            "photographs": FORMAT,
            "cut-outs": self.catalogue.fingerprint,
            "backgrounds": self.studio.backgrounds.fingerprint,
            "options": self.options.model_dump(mode="json", exclude={"folder", "backgrounds"}),
            "canvas": self.planner.canvas,
            "seed": self.planner.seed,
            "pillow": PIL.__version__,
        }


def open_compositions(world: World) -> Compositions:
    """The compositions of a recipe's ``world``.

    Raises:
        AstreaError: an option that there is not, or pictures that cannot be had.
    """
    options = read_options(world.options)
    catalogue = open_catalogue(options.folder, options.held_out)
    studio = Studio(catalogue, open_backgrounds(options.backgrounds))
    return Compositions(Planner(studio, options, world.canvas, world.seed), studio)
