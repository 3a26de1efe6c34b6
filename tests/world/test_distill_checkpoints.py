"""A student taught by experts from checkpoints, and what the arena makes of a recipe that has some."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from astrea.common.errors import AstreaError
from astrea.common.progress import Reporter
from astrea.lab.arena.run import Run
from astrea.lab.arena.variants import variants
from astrea.model.loading import load_model
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.trainer import train
from journeys import CANVAS, checkpoints, recipe

TEACHERS = {"boxes": "detr", "cells": "dinov2", "caption": "git"}
CHANGES = (f"world.canvas={CANVAS}", "data.train_scenes=6", "fuse.steps=0", "tune.steps=1", "align.steps=0")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose experts are from checkpoints."""
    folder = tmp_path_factory.mktemp("teachers")
    checkpoints(TEACHERS, "llama", folder)
    path = folder / "base.yaml"
    path.write_text(recipe(TEACHERS, folder))
    return path


def student_of(base: Path) -> Recipe:
    who = next(each for each in variants(load_recipe(Recipe, str(base))) if each.name == "student")
    recipe = Run(str(base), CHANGES, who, 0).resolve()
    return Recipe.model_validate(
        recipe.model_dump() | {"distill": recipe.distill.model_dump() | {"steps": 2, "batch": 4}}
    )


def test_checkpoints_teach_a_student_that_then_needs_none(base: Path, tmp_path: Path):
    run = student_of(base)
    folder = train(run, tmp_path / "run", report=Reporter())
    stored = load_file(folder / "model.safetensors")
    assert {name.split(".")[3] for name in stored if name.startswith("model.experts.")} == {"student"}
    taught = load_file(tmp_path / "run" / "student" / "student.safetensors")
    for name, tensor in taught.items():
        assert torch.equal(stored[f"model.experts.experts.student.{name}"].to(tensor.dtype), tensor)
    model, _ = load_model(folder)
    assert model.experts.names == ["student"]


def test_a_teacher_that_is_not_there_is_named(base: Path, tmp_path: Path):
    run = student_of(base)
    teachers = run.distill.model_dump()["teachers"]
    teachers["boxes"]["checkpoint"] = str(tmp_path / "nowhere")
    lost = Recipe.model_validate(run.model_dump() | {"distill": run.distill.model_dump() | {"teachers": teachers}})
    with pytest.raises(AstreaError, match=r"expert 'boxes': the checkpoint .*nowhere does not exist"):
        train(lost, tmp_path / "run", report=Reporter())
