"""Experts that learn with the rest: a stage trains `experts`, and those that the recipe does not freeze move."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file

from astrea.common.errors import AstreaError
from astrea.common.progress import Reporter
from astrea.experts.bank import ExpertBank
from astrea.model.loading import load_model
from astrea.model.processing import AstreaImageProcessor
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import ExpertEntry, Recipe
from astrea.training.assembly import assemble
from astrea.training.context import TrainingContext
from astrea.training.distributed import Distributed
from astrea.training.log import TrainLog
from astrea.training.loop import build_optimizer, run_steps
from astrea.training.stages.instruct import InstructObjective
from astrea.training.stopping import Interrupted
from astrea.training.trainable import train_only
from astrea.training.trainer import train, train_with
from expert_builders import OPTIONS, kind_of, small_checkpoint
from original_readers import reading_originals
from own_contexts import SEEING, data_of, fresh
from own_files import asked_about, drawn, llava_row, save_pictures, write_jsonl

LEARN = ["adapters", "heads", "fusion", "language_model", "experts"]
DETECTION_ONLY = {name: {**entry, "frozen": name != "detection"} for name, entry in SEEING.items()}


def state_of(model: Any, name: str) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.experts[name].state_dict().items()}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.fixture
def ctx(make_run, world_data) -> TrainingContext:
    """Fresh experts, of which detection is to learn in tune."""
    run = make_run(experts=DETECTION_ONLY, tune__train=LEARN)
    return TrainingContext(run, *fresh(run), world_data)


def tuning(ctx: TrainingContext) -> InstructObjective:
    """The objective of tune, and only what it trains wants gradients."""
    objective = InstructObjective(ctx, "tune", ctx.recipe.tune, offset=0)
    train_only((p for _, p, _ in objective.trainable()), (ctx.model,))
    return objective


def test_only_experts_that_are_not_frozen_learn(ctx):
    before = {name: state_of(ctx.model, name) for name in ctx.model.experts.names}
    objective = tuning(ctx)
    schedule = ctx.recipe.tune.lasting(2)
    run_steps(objective, schedule, build_optimizer(objective, schedule), on_step=lambda *_: None)
    after = {name: moved(before[name], state_of(ctx.model, name)) for name in ctx.model.experts.names}
    assert {name for name, tensors in after.items() if tensors} == {"detection"}
    # Running statistics of batch normalisation stay: an expert never leaves evaluation mode.
    assert not any("running" in name for name in after["detection"])
    assert not ctx.model.experts.training


def test_they_learn_at_their_own_rate(make_run, world_data):
    run = make_run(experts=DETECTION_ONLY, tune__train=LEARN, tune__experts_lr_scale=0.03)
    ctx = TrainingContext(run, *fresh(run), world_data)
    rates = {scale for name, _, scale in tuning(ctx).trainable() if name.startswith("experts.detection.")}
    assert rates == {0.03}


def test_they_look_at_the_pictures_anew_and_the_others_do_not(ctx):
    samples = ctx.data.draw(0, 4, 0)
    seen = ctx.encode_trainable(samples, learning=False)
    live = ctx.model.experts(samples.pixels())
    torch.testing.assert_close(seen["detection"].tokens, live["detection"].tokens)
    for name in ("captioning", "classification", "segmentation"):
        assert torch.equal(seen[name].tokens, ctx.data.features[name].rows(samples.ids).tokens)
    with torch.no_grad():
        ctx.model.experts["detection"].head.bias.add_(1.0)
    again = ctx.encode_trainable(samples, learning=False)["detection"]
    assert not torch.equal(again.tokens, seen["detection"].tokens)


def test_the_pictures_are_those_that_kept_features_are_of(tiny_world_bank, ctx):
    """World data draws its pictures again from their numbers alone."""
    from astrea.world.dataset import features_of, scene_at

    index = torch.tensor([7, 3, 11])
    pixels = ctx.data.pictures(index)
    wanted = features_of(tiny_world_bank, [scene_at("train", number, ctx.recipe.world) for number in index.tolist()])
    with torch.no_grad():
        found = tiny_world_bank(pixels)
    for name, part in wanted.items():
        torch.testing.assert_close(found[name].tokens, part.tokens)


@pytest.fixture
def tiny_world_bank() -> ExpertBank:
    torch.manual_seed(0)
    return ExpertBank(SEEING)


def test_the_gradient_is_that_of_the_answers(ctx):
    """What reaches an expert's weights in a step is what a difference quotient of the loss says."""
    objective = tuning(ctx)
    batch = objective.batch(0, 0, 4)
    weight = ctx.model.experts["detection"].head.weight

    exact = replace(
        batch.samples,
        pixels=lambda: batch.samples.pixels().double(),
        encode=lambda names: {n: part.map(torch.Tensor.double) for n, part in batch.samples.encode(names).items()},
    )

    def answers() -> torch.Tensor:
        seen = ctx.encode_trainable(exact, learning=True)
        inputs = batch.packed.model_inputs()
        features = {name: part.rows(batch.shown) for name, part in seen.items()}
        return ctx.model(**inputs, features=features, use_cache=False).loss

    ctx.model.eval().double()
    (gradient,) = torch.autograd.grad(answers(), weight)
    assert gradient.abs().sum() > 0
    step = 1e-2 * gradient / gradient.norm()
    with torch.no_grad():
        weight.add_(step)
        more = answers()
        weight.sub_(2 * step)
        less = answers()
    # Along its own direction the loss, which is a number of 32 bits, changes by the gradient's length.
    assert float((more - less) / (2 * step.norm())) == pytest.approx(float(gradient.norm()), rel=0.02)


def test_an_expert_that_decodes_words_says_that_it_cannot(make_run, tmp_path):
    experts = {
        "says": {"kind": "captioning", "checkpoint": str(small_checkpoint("blip", tmp_path / "blip")),
                 "options": {"tokens": 4}},
        "sees": {"kind": "detection", "frozen": True},
    }  # fmt: skip
    scenes = drawn(6)
    asked = asked_about(scenes, ("existence",))
    rows = [
        llava_row(str(n), [path], [(asked[n][0].text, asked[n][0].answer)])
        for n, path in enumerate(save_pictures(scenes, tmp_path))
        if asked[n]
    ]
    run = make_run(experts=experts, tune__train=LEARN)
    model, tokenizer = fresh(run)
    data = data_of([write_jsonl(tmp_path / "a.jsonl", rows)], model, tokenizer)
    objective = tuning(TrainingContext(run, model, tokenizer, data))
    with pytest.raises(AstreaError, match=r"'says' cannot learn.*no gradient") as told:
        objective.loss(objective.batch(0, 0, 4), 0)
    assert told.value.hint == "set experts.says.frozen=true"


@pytest.mark.parametrize("architecture", ["rt_detr_v2", "segformer", "siglip"])
def test_checkpoint_experts_learn_from_files_of_ones_own(architecture, make_run, tmp_path):
    folder = str(small_checkpoint(architecture, tmp_path / architecture))
    scenes = drawn(8)
    asked = asked_about(scenes, ("existence", "counting"))
    rows = [
        llava_row(str(n), [path], [(q.text, q.answer) for q in asked[n][:2]])
        for n, path in enumerate(save_pictures(scenes, tmp_path))
    ]
    entry = ExpertEntry(kind=kind_of(architecture), checkpoint=folder, options=OPTIONS[architecture])
    run = make_run(experts={"it": entry.model_dump()}, tune__train=LEARN)
    model, tokenizer = fresh(run)
    data = data_of([write_jsonl(tmp_path / "a.jsonl", rows)], model, tokenizer)
    ctx = TrainingContext(run, model, tokenizer, data)
    before = state_of(model, "it")
    objective = tuning(ctx)
    schedule = run.tune.lasting(2)
    run_steps(objective, schedule, build_optimizer(objective, schedule), on_step=lambda *_: None)
    assert moved(before, state_of(model, "it"))


def small(recipe: Path, *changes: str) -> Recipe:
    learn = ["tune.train=[adapters, heads, fusion, language_model, experts]", "experts.captioning.frozen=true"]
    # Judging reliability looks at hundreds of pictures more in every step.
    few = ["fuse.losses.reliability=0", "tune.losses.reliability=0"]
    return load_recipe(Recipe, str(recipe), [*learn, *few, *changes])


@pytest.fixture(scope="module")
def finished(small_recipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("learning") / "whole"
    train(small(small_recipe), folder, report=Reporter())
    return folder


def test_a_finished_run_keeps_what_they_learned(finished, small_recipe):
    """The folder's experts are other ones than it started with, but for the frozen one."""
    model, _ = load_model(finished / "model")
    recipe = small(small_recipe)
    start, _ = assemble(recipe, Path(recipe.pretrain))
    changed = {n for n in model.experts.names if moved(state_of(start, n), state_of(model, n))}
    assert changed == {"classification", "segmentation", "detection"}


def test_a_run_that_was_stopped_ends_with_the_same_bits(finished, small_recipe, tmp_path, monkeypatch):
    """The experts' weights and their optimizer's state are in the checkpoint."""
    write = TrainLog.write
    steps = len((finished / "train.jsonl").read_text().splitlines())

    def stop(self: TrainLog, at: int, record: dict[str, Any]) -> None:
        write(self, at, record)
        if at == steps - 1:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(TrainLog, "write", stop)
        with pytest.raises(Interrupted):
            train(small(small_recipe), tmp_path / "run", report=Reporter())
    train(small(small_recipe), tmp_path / "run", resume=True, report=Reporter())
    one, two = (load_file(folder / "model" / "model.safetensors") for folder in (finished, tmp_path / "run"))
    assert one.keys() == two.keys()
    assert not moved(one, two)


def test_several_processes_are_refused_before_anything_is_computed(small_recipe, tmp_path):
    ranks = Distributed(rank=0, world=2)
    with pytest.raises(AstreaError, match=r"would learn in 2 processes") as told:
        train_with(ranks, small(small_recipe), tmp_path / "run", resume=False, cache=None, observe=None,
                   report=Reporter())  # fmt: skip
    assert "one process" in told.value.hint
    assert not (tmp_path / "run").exists()


def test_a_recipe_in_which_nobody_can_learn_is_refused(make_run):
    with pytest.raises(ValidationError, match="every expert is frozen"):
        make_run(experts={"detection": {"kind": "detection", "frozen": True}}, tune__train=LEARN)
    with pytest.raises(ValidationError, match=r"align\.train: experts are aligned as they are"):
        make_run(align__train=["adapters", "experts"])


def test_a_recipe_without_them_is_as_it_was(make_run):
    """What names no frozen expert is written as before there was the word, so that old checkpoints and cells fit."""
    run = make_run()
    assert run.learning_experts == ()
    assert run.model_dump()["experts"]["detection"] == {"kind": "detection", "options": {}}
    frozen = make_run(experts={"detection": {"kind": "detection", "frozen": True}})
    assert frozen.model_dump()["experts"]["detection"]["frozen"] is True


def test_stages_without_steps_train_nobody(make_run):
    assert make_run(tune__train=LEARN, tune__steps=0).learning_experts == ()
    assert make_run(fuse__train=["adapters", "experts"]).learning_experts == tuple(SEEING)


def test_a_picture_processor_and_training_show_an_expert_the_same(ctx):
    """What an expert learned on is what it is shown when it is asked."""
    from astrea.world.dataset import scene_at

    pixels = ctx.data.pictures(torch.tensor([5]))
    picture = Image.fromarray(scene_at("train", 5, ctx.recipe.world).image)
    assert torch.equal(pixels, AstreaImageProcessor(64)([picture])["pixel_values"])


def test_those_that_read_pictures_as_they_are_learn_from_them_as_they_are(make_run, tiny_processor, tmp_path):
    run = make_run(experts=DETECTION_ONLY, tune__train=LEARN)
    model, tokenizer = fresh(run)
    sizes = [(90, 30), (40, 80)]
    for number, size in enumerate(sizes):
        Image.new("RGB", size, "red").save(tmp_path / f"{number}.png")
    rows = [llava_row(str(number), [f"{number}.png"], [("is it red?", "yes")]) for number in range(2)]
    with reading_originals(model, tiny_processor) as (_, given):
        data = data_of([write_jsonl(tmp_path / "rows.jsonl", rows)], model, tokenizer)
        samples = data.draw(0, 2, 0)
        ctx = TrainingContext(run, model, tokenizer, data)
        tuning(ctx)
        found = ctx.encode_trainable(samples, learning=True)
        data.pool.shutdown()
    assert [sorted(shapes) for shapes in given] == [[(3, 30, 90), (3, 80, 40)]]
    assert found["detection"].tokens.requires_grad
