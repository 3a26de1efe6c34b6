"""What a recipe of photographs trains before everything else: the head of the expert `segmenter`."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch

from astrea.common.errors import AstreaError
from astrea.common.files import sha256_file, write_json_atomic
from astrea.common.paths import exists, file_guard
from astrea.common.progress import SILENT, Reporter
from astrea.common.provenance import commit
from astrea.experts.packaged.class_names import CATEGORIES, COLOURS
from astrea.experts.packaged.segmenter import SegmenterExpert
from astrea.experts.packaged.segmenter_network import SegmenterHead
from astrea.model.components import CARD, fill
from astrea.recipes.recipe import Recipe
from astrea.world.photographs.compositions import Compositions
from astrea.world.photographs.segmenter_training import SegmenterObjective, segmenter_scores
from astrea.world.pretrain import fit, refuse_other

SEGMENTER = "segmenter"
JUDGED = 200
"""Validation scenes that the scores on the card are from."""


def pretrain(recipe: Recipe, made: Compositions, folder: Path, *, report: Reporter = SILENT) -> None:
    """Train the head and write it with its card; one that is already there is kept.

    Raises:
        AstreaError: the recipe has no such expert, there is a head that was made with other settings, or the folder
            cannot be written.
    """
    if all(entry.kind != SEGMENTER for entry in recipe.experts.values()):
        raise AstreaError(
            f"the recipe {recipe.name!r} has no expert that is trained on photographs", "train it as it is"
        )
    with file_guard(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path, settings = folder / f"{SEGMENTER}.safetensors", settings_digest(recipe, made)
    if not exists(path):
        train_head(recipe, made, path, settings, report)
    else:
        refuse_other(path, settings)
    write_card(recipe, made, folder)


def settings_digest(recipe: Recipe, made: Compositions) -> str:
    """What decides the bytes of the head, apart from code."""
    settings = {"seed": recipe.seed, "schedule": recipe.pretraining.expert.model_dump(), "world": made.key}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def train_head(recipe: Recipe, made: Compositions, path: Path, settings: str, report: Reporter) -> None:
    """Train a fresh head on the training split."""
    torch.manual_seed(recipe.seed)
    expert = SegmenterExpert()
    expert.head = SegmenterHead(len(CATEGORIES), len(COLOURS))
    objective = SegmenterObjective(expert, made, half=recipe.runtime.precision == "bf16")
    fit(expert.head, objective, recipe.pretraining.expert, path, settings=settings, report=report)


def write_card(recipe: Recipe, made: Compositions, folder: Path) -> None:
    """How the head was made, what it scores, and what its bytes are."""
    path = folder / f"{SEGMENTER}.safetensors"
    expert = SegmenterExpert()
    fill(expert.head, path, SEGMENTER)
    card = {
        "command": f"astrea pretrain {recipe.name}",
        "commit": commit(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "seed": recipe.seed,
        "world": made.key,
        "pretraining": recipe.pretraining.expert.model_dump(),
        "scores": segmenter_scores(expert, made, JUDGED),
        "sha256": {SEGMENTER: sha256_file(path)},
    }
    with file_guard(folder):
        write_json_atomic(folder / CARD, card)
