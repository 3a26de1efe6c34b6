"""Every ingredient can be switched off by the recipe alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from astrea.common.errors import AstreaError
from astrea.common.progress import Reporter
from astrea.model.loading import load_model
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.trainer import train


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs lie side by side; they share ``runs/cache``."""
    return tmp_path_factory.mktemp("runs")


SWITCHES: dict[str, tuple[list[str], Callable[[dict[str, torch.Tensor], list[dict[str, Any]]], bool]]] = {
    "mixer": (["model.mixer=false"], lambda t, r: not any(n.startswith("model.fusion.mixer") for n in t)),
    "residual": (["model.residual=false"], lambda t, r: float(t["model.fusion.residual_keep"]) == 1.0),
    "allocator": (["model.gate=false"], lambda t, r: not any(n.startswith("model.fusion.allocator") for n in t)),
    "what the allocator reads": (
        ["model.gate_question=false", "model.gate_confidence=true"],
        lambda t, r: "contribution" in r[-1],
    ),
    "word start": (["model.word_start=false"], lambda t, r: "word" in r[0]),
    "queue": (["contrast.queue=0"], lambda t, r: "itc" in r[0] and "itc" in r[-1]),
    "soft targets and momentum": (["contrast.soft_targets=0", "contrast.momentum=0"], lambda t, r: "itc" in r[0]),
    "contribution": (["regularisation.contribution_every=0"], lambda t, r: "contribution" not in r[-1]),
    "contribution's weight": (["tune.losses.contribution=0"], lambda t, r: "contribution" not in r[-1]),
    "expert dropout": (["regularisation.expert_dropout=0"], lambda t, r: "lm" in r[-1]),
    "load bias": (["regularisation.load_rate=0"], lambda t, r: not t["model.fusion.allocator.load_bias"].any()),
    "one at a time": (
        ["align.progressive=false"],
        lambda t, r: {w["stage"] for w in r} == {"align/joint", "fuse", "tune"},
    ),
    "word loss": (["align.losses.word=0"], lambda t, r: "word" not in r[0] and "itc" in r[0]),
    "contrast": (
        ["align.losses.itc=0", "fuse.losses.itc=0", "tune.losses.itc=0"],
        lambda t, r: not any("itc" in w for w in r),
    ),
    "agreement": (["align.losses.agree=0"], lambda t, r: not any("agree" in w for w in r)),
    "alignment": (["align.steps=0"], lambda t, r: r[0]["stage"] == "fuse"),
    "two experts": (
        ["experts={captioning: {kind: captioning}, detection: {kind: detection}}"],
        lambda t, r: not any("segmentation" in n for n in t),
    ),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_every_ingredient_can_be_switched_off(small_recipe, runs, name):
    overrides, off = SWITCHES[name]
    short = ["align.steps=5", "fuse.steps=2", "tune.steps=2"]
    recipe = load_recipe(Recipe, str(small_recipe), [*short, *overrides])
    folder = runs / f"without-{name}"
    train(recipe, folder, report=Reporter())
    tensors = load_file(folder / "model" / "model.safetensors")
    assert off(tensors, [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()])
    assert all(torch.isfinite(value).all() for value in tensors.values())
    model, _ = load_model(folder / "model")
    assert model.experts.names == list(recipe.experts)


def test_a_stage_without_any_loss_is_an_error(small_recipe, runs):
    recipe = load_recipe(Recipe, str(small_recipe), ["align.losses={agree: 0.1}"])
    with pytest.raises(AstreaError, match="align has no loss"):
        train(recipe, runs / "lossless", report=Reporter())
