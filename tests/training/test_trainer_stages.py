"""The stages of a run: which there are, what each one moves, and what a seed decides."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from astrea.common.progress import Reporter
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training import stage_runner, trainer
from astrea.training.assembly import assemble
from astrea.training.identity import config_hash
from astrea.training.plan import plan_stages
from astrea.training.sources import training_data
from astrea.training.trainer import train
from listening import Said
from small_recipes import STAGES


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs lie side by side; they share ``runs/cache``."""
    return tmp_path_factory.mktemp("stages")


def weights_of(model: Path) -> dict[str, torch.Tensor]:
    return load_file(model / "model.safetensors")


def test_another_seed_gives_other_weights(small_recipe: Path, runs: Path):
    found = []
    for seed in (0, 1):
        loaded = load_recipe(
            Recipe, str(small_recipe), ["align.steps=0", "fuse.steps=0", "tune.steps=1", f"seed={seed}"]
        )
        found.append(weights_of(train(loaded, runs / f"seed-{seed}", report=Reporter())))
    # Not only what starts at random: the experts alone are the same, for they come from a file.
    same = {name for name in found[0] if torch.equal(found[0][name], found[1][name])}
    assert {name for name in found[0] if name.startswith("model.experts.")} <= same
    assert "model.fusion.mixer.value.weight" not in same


@pytest.mark.parametrize(
    ("overrides", "moves"),
    [
        (["fuse.steps=0", "tune.steps=0"], ("alignment.",)),
        (["align.steps=0", "tune.steps=0"], ("alignment.", "fusion.")),
        (["align.steps=0", "fuse.steps=0"], ("alignment.", "fusion.", "language_model.")),
    ],
)
def test_each_stage_moves_what_it_trains_and_nothing_else(small_recipe: Path, runs: Path, overrides, moves):
    stage = load_recipe(Recipe, str(small_recipe), [*overrides, "regularisation.load_rate=0", "model.residual_end=1.0"])
    start = assemble(stage, Path(stage.pretrain))[0].state_dict()
    said = Said()
    end = weights_of(train(stage, runs / f"only-{len(moves)}", report=said))
    moved = {name for name in end if not torch.equal(start[name], end[name])}
    assert moved
    assert {name.split(".")[1] + "." for name in moved} == set(moves)
    told = [line for line in said.lines if " learns: " in line][-1]
    learned = told.split("; frozen: ")[0].split(" learns: ")[1]
    assert "experts" not in learned
    assert ("language model" in learned) == ("language_model." in moves)


def test_what_one_phase_has_freed_is_given_back_before_the_next(small_recipe: Path, runs: Path, monkeypatch):
    order: list[str] = []

    def encode(*given, **options):
        order.append("encoded")
        return training_data(*given, **options)

    said = Said()
    monkeypatch.setattr(said, "say", lambda text: order.append("a stage") if " learns: " in text else None)
    monkeypatch.setattr(trainer, "training_data", encode)
    for module in (trainer, stage_runner):
        monkeypatch.setattr(module, "give_back", lambda: order.append("given back"))
    brief = load_recipe(Recipe, str(small_recipe), ["align.steps=0", "fuse.steps=0", "tune.steps=1"])
    train(brief, runs / "brief", report=said)
    assert order == ["encoded", "given back", "given back", "a stage", "given back"]


def test_stages_share_out_the_steps(small_recipe: Path):
    run = load_recipe(Recipe, str(small_recipe))
    plans = plan_stages(run)
    assert [plan.name for plan in plans] == STAGES
    assert [plan.schedule.steps for plan in plans] == [2, 2, 2, 2, 2, 4, 6]
    uneven = plan_stages(load_recipe(Recipe, str(small_recipe), ["align.steps=7", "fuse.steps=0"]))
    assert sum(plan.schedule.steps for plan in uneven) == 7 + 6
    assert "fuse" not in [plan.name for plan in uneven]
    at_once = plan_stages(load_recipe(Recipe, str(small_recipe), ["align.progressive=false"]))
    assert [(plan.name, plan.schedule.steps) for plan in at_once] == [("align/joint", 10), ("fuse", 4), ("tune", 6)]
    assert config_hash(run) != config_hash(load_recipe(Recipe, str(small_recipe), ["seed=1"]))
    assert config_hash(run) == config_hash(load_recipe(Recipe, str(small_recipe)))
