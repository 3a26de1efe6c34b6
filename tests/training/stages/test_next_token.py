"""Pre-alignment by next-token loss: one adapter learns, one expert is read, and a run with it resumes bit-equal."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from astrea.common.errors import AstreaError
from astrea.common.progress import Reporter
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.context import TrainingContext
from astrea.training.log import TrainLog
from astrea.training.loop import build_optimizer, run_steps
from astrea.training.stages.next_token import NextTokenAlignObjective, OneExpert
from astrea.training.stopping import Interrupted
from astrea.training.trainer import plan_stages, train

NAMES = ["captioning", "classification", "segmentation", "detection"]


@pytest.fixture
def ctx(make_context) -> TrainingContext:
    return make_context(align__kind="next_token", align__losses={}, align__lr=1e-2)


def joins(ctx: TrainingContext, name: str, offset: int = 0) -> NextTokenAlignObjective:
    return NextTokenAlignObjective(ctx, joining=name, offset=offset)


def weights(ctx: TrainingContext) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in ctx.model.state_dict().items()}


# One phase


@pytest.mark.parametrize("name", NAMES)
def test_only_the_joining_adapter_moves_and_all_of_it(ctx, name):
    objective = joins(ctx, name)
    promised = {f"model.alignment.{part}" for part, _, _ in objective.trainable()}
    before = weights(ctx)
    schedule = ctx.recipe.align.lasting(3)
    run_steps(objective, schedule, build_optimizer(objective, schedule), on_step=lambda step, figures: None)
    moved = {part for part, value in weights(ctx).items() if not torch.equal(value, before[part])}
    assert moved == promised
    assert all(part.startswith(f"model.alignment.adapters.{name}.") for part in moved)


def test_the_momentum_copy_follows_the_adapter(ctx):
    objective = joins(ctx, "detection")
    before = {name: value.clone() for name, value in ctx.contrast.copy.state_dict().items()}
    schedule = ctx.recipe.align.lasting(2)
    run_steps(objective, schedule, build_optimizer(objective, schedule), on_step=lambda step, figures: None)
    after = ctx.contrast.copy.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith("adapters.detection.") for name in moved)


def test_an_adapter_learns_to_be_read(ctx, monkeypatch):
    objective = joins(ctx, "detection")
    batch = objective.batch(0, 0, 8)
    # A language model that has learned nothing cannot be told anything: first it learns to read this adapter ...
    language = torch.optim.Adam(ctx.model.language_model.parameters(), lr=1e-2)
    for _ in range(60):
        language.zero_grad()
        objective.loss(batch, 0)[0].backward()
        language.step()
    good = objective.loss(batch, 0)[0].item()
    # ... which then forgets what it said.
    with torch.no_grad():
        for parameter in ctx.model.alignment.adapters["detection"].parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
    monkeypatch.setattr(objective, "batch", lambda *args: batch)
    seen: list[float] = []
    schedule = ctx.recipe.align.lasting(40)
    optimizer = build_optimizer(objective, schedule)
    run_steps(objective, schedule, optimizer, on_step=lambda step, figures: seen.append(figures["lm"]))
    assert seen[-1] < seen[0] - 0.5 * (seen[0] - good)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_the_one_expert_is_read(ctx, name):
    objective = joins(ctx, name)
    batch = objective.batch(0, 0, 4)
    ids = batch.packed.input_ids
    own = ctx.model.experts[name].num_tokens
    assert (ids == ctx.model.config.image_token_id).sum(1).tolist() == [own] * 4
    before = objective.loss(batch, 0)[0].item()
    with torch.no_grad():
        for parameter in ctx.model.fusion.parameters():
            parameter.add_(1)
        for other in set(NAMES) - {name}:
            for parameter in ctx.model.alignment.adapters[other].parameters():
                parameter.add_(1)
    assert objective.loss(batch, 0)[0].item() == before
    with torch.no_grad():
        for parameter in ctx.model.alignment.adapters[name].parameters():
            parameter.add_(0.1)
    assert objective.loss(batch, 0)[0].item() != before


def test_a_strategy_that_wants_a_row_per_question_changes_nothing_here(ctx, monkeypatch):
    usual = joins(ctx, "detection").batch(0, 0, 4).packed.input_ids
    monkeypatch.setattr(ctx.model.fusion, "per_question", True)
    assert torch.equal(joins(ctx, "detection").batch(0, 0, 4).packed.input_ids, usual)


def test_one_expert_gives_its_aligned_tokens_as_they_are(ctx):
    features = ctx.data.rows(torch.arange(5))
    matrix = ctx.model.alignment(features)
    found = OneExpert(2, 8)(matrix, matrix.tokens.new_zeros(5, 3, matrix.tokens.shape[-1]))
    part = features["segmentation"]
    filled = part.confidence > 0
    assert torch.equal(found.valid, filled)
    assert not filled.all()
    wanted = ctx.model.alignment.adapters["segmentation"](part.tokens)
    torch.testing.assert_close(found.tokens[filled], wanted[filled])
    assert found.bias is None
    assert found.words is None


def test_placeholders_for_the_whole_model_do_not_fit_one_expert(ctx):
    packed = ctx.packer.pack([[]])
    features = {"detection": ctx.data.features["detection"].rows(torch.arange(1))}
    with pytest.raises(AstreaError, match="1 pictures of 8 visual tokens do not fit"):
        ctx.model(**packed.model_inputs(), features=features, fusion=OneExpert(3, 8))


def test_the_stream_of_samples_goes_on_from_phase_to_phase(make_context):
    ctx = make_context(align__kind="next_token", align__losses={}, align__accumulate=2)
    first = [joins(ctx, "captioning").batch(step, micro, 4).samples.ids for step in (0, 1) for micro in (0, 1)]
    later = joins(ctx, "classification", offset=2).batch(0, 0, 4).samples.ids
    seen = torch.cat([*first, later]).tolist()
    assert len(set(seen)) == 20  # of 60: none twice within an epoch


# The stage


def test_every_phase_is_an_experts_and_their_steps_are_the_stages(make_run):
    plans = plan_stages(
        make_run(align__kind="next_token", align__losses={}, align__steps=7, fuse__steps=0, tune__steps=0)
    )
    assert [plan.name for plan in plans] == [f"align/{name}" for name in NAMES]
    assert [plan.schedule.steps for plan in plans] == [1, 2, 2, 2]
    assert {plan.schedule.batch for plan in plans} == {8}


def test_the_plan_builds_the_objective_of_each_phase(make_context):
    ctx = make_context(align__kind="next_token", align__losses={}, align__steps=8)
    built = [plan.build(ctx) for plan in plan_stages(ctx.recipe)[:4]]
    assert all(isinstance(objective, NextTokenAlignObjective) for objective in built)
    assert [objective.joining for objective in built] == NAMES
    assert [objective.offset for objective in built] == [0, 2, 4, 6]


# A whole run


@pytest.fixture(scope="module")
def run(small_overrides: list[str]) -> Recipe:
    return load_recipe(
        Recipe, "tiny", [*small_overrides, "align.kind=next_token", "align.losses={}", "fuse.steps=2", "tune.steps=2"]
    )


@pytest.fixture(scope="module")
def whole(run: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(run, folder, report=Reporter())
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def test_a_run_aligns_by_next_token_and_then_joins_everything(whole):
    logged = rows(whole)
    stages = [row["stage"] for row in logged]
    assert list(dict.fromkeys(stages)) == [*(f"align/{name}" for name in NAMES), "fuse", "tune"]
    assert [stages.count(f"align/{name}") for name in NAMES] == [2, 3, 2, 3]
    assert all(set(row) & {"lm", "itc", "word", "agree"} == {"lm"} for row in logged[:10])
    assert {"lm", "itc"} <= set(logged[10])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals of a POSIX system")
@pytest.mark.parametrize("step", [4, 5, 10])
def test_it_resumes_in_a_phase_and_between_phases_to_the_same_bits(run, whole, monkeypatch, step):
    folder = whole.parent / f"stopped-{step}"
    write = TrainLog.write

    def stop(self: TrainLog, at: int, record: dict[str, Any]) -> None:
        write(self, at, record)
        if at == step:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(TrainLog, "write", stop)
        with pytest.raises(Interrupted):
            train(run, folder, report=Reporter())
    assert len(rows(folder)) == step
    train(run, folder, resume=True, report=Reporter())
    mine, theirs = (load_file(path / "model" / "model.safetensors") for path in (folder, whole))
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert rows(folder) == rows(whole)
