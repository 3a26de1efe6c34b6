"""A small run on scenes that faultless experts describe, so that no weights need training first."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from astrea.recipes.recipe import Recipe
from astrea.training.assembly import assemble
from astrea.training.context import TrainingContext
from astrea.world.dataset import WorldData
from astrea.world.language.pretraining import ideal_features
from astrea.world.scenes.captions import captions
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.questions import Balancer

SCENES = 60
BASE: dict[str, Any] = {
    "name": "small",
    "llm": {"width": 32, "layers": 2, "heads": 2, "feed_forward": 64},
    "data": {"train_scenes": SCENES},
    # With every ingredient, also those that are not in the default.
    "model": {"contrast_width": 16, "adapter_hidden": 24, "residual": True, "prune_share": 0.3},
    "regularisation": {"corruption": 0.1},
    "contrast": {"queue": 32, "momentum": 0.9},
    "experts": {kind: {"kind": kind} for kind in ("captioning", "classification", "segmentation", "detection")},
    "align": {
        "train": ["adapters", "heads"],
        "losses": {"word": 1.0, "itc": 0.3, "agree": 0.1},
        "progressive": True,
        "steps": 4,
        "batch": 8,
        "lr": 1e-3,
        "warmup": 1,
    },
    "fuse": {
        "train": ["adapters", "heads", "fusion"],
        "losses": {"lm": 1.0, "itc": 0.1, "contribution": 0.02, "reliability": 0.1},
        "steps": 4,
        "batch": 8,
        "lr": 1e-3,
        "warmup": 1,
    },
    "tune": {
        "train": ["adapters", "heads", "fusion", "language_model"],
        "losses": {"lm": 1.0, "itc": 0.1, "contribution": 0.02, "reliability": 0.1},
        "steps": 4,
        "batch": 8,
        "lr": 1e-3,
        "warmup": 1,
    },
}


def small_run(**changes: Any) -> Recipe:
    """The base recipe with dotted keys (``fuse__batch=2``) changed."""
    tree = {key: dict(value) if isinstance(value, dict) else value for key, value in BASE.items()}
    for key, value in changes.items():
        part, _, name = key.partition("__")
        if name:
            tree[part] = {**tree.get(part, {}), name: value}
        else:
            tree[part] = value
    if tree["model"].get("strategy", "astrea") != "astrea":  # others read neither its losses nor these keys
        tree["regularisation"] = {k: v for k, v in tree["regularisation"].items() if k == "expert_dropout"}
        for stage in ("fuse", "tune"):
            tree[stage] = {**tree[stage], "losses": {"lm": 1.0, "itc": 0.1} | changes.get(f"{stage}__losses", {})}
    return Recipe.model_validate(tree)


@pytest.fixture(scope="module", autouse=True)
def own_threads() -> Iterator[None]:
    """Training sets the number of threads of the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Recipe]:
    """`small_run`."""
    return small_run


@pytest.fixture(scope="session")
def world_data() -> WorldData:
    """Sixty scenes as faultless experts see them."""
    scenes = [split_scene("train", index, 0) for index in range(SCENES)]
    balancer, rng = Balancer(), random.Random(0)
    questions = [balancer.choose(scene, rng)[:3] for scene in scenes]
    told = [captions(scene, 3, index) for index, scene in enumerate(scenes)]
    return WorldData(ideal_features(scenes), questions, told)


@pytest.fixture
def make_context(world_data: WorldData) -> Callable[..., TrainingContext]:
    """Builds a fresh training context of the base recipe with changes."""

    def make(**changes: Any) -> TrainingContext:
        run = small_run(**changes)
        model, tokenizer = assemble(run, None)
        torch.manual_seed(1)
        model.train()
        return TrainingContext(run, model, tokenizer, world_data)

    return make
