"""Training one run of the arena, and keeping its model, so that it can be measured on other pictures later."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from astrea.common.errors import AstreaError
from astrea.common.files import write_json_atomic
from astrea.common.paths import file_guard, read_json
from astrea.common.progress import SILENT, Reporter
from astrea.lab.arena.callback import TrainingCallback
from astrea.recipes.recipe import Recipe
from astrea.training.trainer import train

TRAINING = "training.json"
"""File beside a kept model: what its training has shown."""


@dataclass(frozen=True)
class Trained:
    """A trained model's folder, and what its training has shown.

    learned, curve: see `TrainingCallback`. seconds: of every stage.
    """

    model: Path
    learned: list[str]
    curve: list[list[float]]
    seconds: dict[str, float]


def train_one(recipe: Recipe, folder: Path, *, cache: Path, curve: int, report: Reporter = SILENT) -> Trained:
    """Train a recipe in a folder.

    Args:
        cache: kept features. curve: optimizer steps between two points of the curve; 0 = none.
    """
    callback = TrainingCallback(curve)
    place = train(recipe, folder / "run", cache=cache, observe=callback, report=report)
    return Trained(place, sorted(callback.learned), callback.curve, read_json(folder / "run" / "seconds.json"))


def keep(trained: Trained, kept: Path, digest: str) -> None:
    """Copy a model, with what its training has shown, to where `kept_training` finds it.

    Args:
        digest: of the recipe.
    """
    with file_guard(kept):
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(trained.model, kept)
        shown = {"learned": trained.learned, "curve": trained.curve, "seconds": trained.seconds}
        write_json_atomic(kept / TRAINING, {"digest": digest, **shown})


def kept_training(kept: Path | None, digest: str) -> Trained | None:
    """The model that was kept in a folder, if there is one and it is of the same recipe."""
    if kept is None:
        return None
    try:
        said = read_json(kept / TRAINING)
    except AstreaError:
        return None
    if not isinstance(said, dict) or said.get("digest") != digest:
        return None
    return Trained(kept, said["learned"], said["curve"], said["seconds"])
