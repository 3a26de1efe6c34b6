"""Training and answering on another device than the processor: nothing stays behind, and the figures are the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from astrea.common.fingerprint import tensors_fingerprint
from astrea.evaluation.generate import Predictor
from astrea.fusion.registry import STRATEGIES
from astrea.model.processing import AstreaProcessor
from astrea.recipes.recipe import Recipe, Schedule
from astrea.training.checkpoint import (
    Checkpoint,
    flatten_optimizer,
    load_checkpoint,
    restore_optimizer,
    rng_state,
    save_checkpoint,
)
from astrea.training.context import TrainingContext
from astrea.training.distributed import Distributed
from astrea.training.loop import Objective, build_optimizer, run_steps
from astrea.training.resume import frozen_experts, restore, snapshot
from astrea.training.stages.next_token import NextTokenAlignObjective
from astrea.training.trainer import plan_stages
from astrea.world.dataset import WorldData
from other_device import ELSEWHERE, HERE, Far, Waits, moved_there, two_devices
from own_contexts import SEEING, data_of, fresh, fusing, only_learning
from own_files import drawn, mixed_rows, save_pictures, write_jsonl

SCHEDULE = Schedule(steps=1, batch=4, lr=1e-3, warmup=1)
Figures = list[dict[str, Any]]
Steps = Callable[[TrainingContext], Figures]


@pytest.fixture
def make_context_on(make_run: Callable[..., Recipe], world_data: WorldData) -> Callable[..., TrainingContext]:
    """A fresh training context on a device."""

    def make(device: torch.device, **changes: Any) -> TrainingContext:
        run = make_run(**{"regularisation": {"contribution_every": 2, "corruption": 0.1}, "experts": SEEING, **changes})
        torch.manual_seed(1)
        return TrainingContext(run, *fresh(run), world_data, Distributed(device=device))

    return make


def steps_of(ctx: TrainingContext, objective: Objective) -> Figures:
    only_learning(ctx, objective)
    figures: Figures = []
    run_steps(objective, SCHEDULE, build_optimizer(objective, SCHEDULE), on_step=lambda _, told: figures.append(told))
    return figures


def same_on_both(make: Callable[[torch.device], TrainingContext], steps: Steps) -> None:
    """The other device computes as the processor does, so its figures are the same to the last bit."""
    here = steps(make(HERE))
    with two_devices() as elsewhere:
        ctx = make(elsewhere)
        there = steps(ctx)
    assert all(isinstance(value, Far) for value in ctx.model.alignment.state_dict().values())
    assert here == there


def test_every_stage_with_every_ingredient(make_context_on):
    def steps(ctx: TrainingContext) -> Figures:
        return [told for plan in plan_stages(ctx.recipe) for told in steps_of(ctx, plan.build(ctx))]

    same_on_both(make_context_on, steps)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "astrea"])
def test_every_strategy(make_context_on, strategy):
    options = {"expert": "detection"} if strategy == "single" else {}
    model = {"strategy": strategy, "contrast_width": 16, "options": options}
    same_on_both(lambda device: make_context_on(device, model=model), lambda ctx: steps_of(ctx, fusing(ctx, "tune")))


def test_alignment_by_next_tokens(make_context_on):
    same_on_both(
        make_context_on, lambda ctx: steps_of(ctx, NextTokenAlignObjective(ctx, joining="detection", offset=0))
    )


def test_data_of_ones_own_and_experts_that_learn(make_run, tmp_path):
    scenes = drawn(8)
    write_jsonl(tmp_path / "mixed.jsonl", mixed_rows(scenes, save_pictures(scenes, tmp_path)))
    learn = ["adapters", "heads", "fusion", "language_model", "experts"]

    def make(device: torch.device) -> TrainingContext:
        run = make_run(experts=SEEING, tune__train=learn)
        model, tokenizer = fresh(run)
        ranks = Distributed(device=device)
        model.to(device)
        data = data_of([tmp_path / "mixed.jsonl"], model, tokenizer, ranks=ranks)
        return TrainingContext(run, model, tokenizer, data, ranks)

    same_on_both(make, lambda ctx: steps_of(ctx, fusing(ctx, "tune")))


def test_checkpoints_travel_between_devices(make_context_on, tmp_path):
    """Made after one step on either, they hold the same; and from one of the processor's it goes on elsewhere."""

    def begun(ctx: TrainingContext) -> tuple[Objective, torch.optim.Optimizer]:
        objective = fusing(ctx, "tune")
        only_learning(ctx, objective)
        return objective, build_optimizer(objective, SCHEDULE)

    def go_on(begun: tuple[Objective, torch.optim.Optimizer], start: int) -> Figures:
        figures: Figures = []
        schedule = SCHEDULE.model_copy(update={"steps": start + 1})
        run_steps(begun[0], schedule, begun[1], start=start, on_step=lambda _, told: figures.append(told))
        return figures

    def saved(ctx: TrainingContext, optimizer: torch.optim.Optimizer, name: str) -> Checkpoint:
        tensors, groups = flatten_optimizer(optimizer)
        state = {"optimizer": groups, "rng": rng_state(), "experts": tensors_fingerprint(frozen_experts(ctx))}
        save_checkpoint(tmp_path / name, 1, {**snapshot(ctx), "optimizer": tensors}, state, config_hash="")
        return load_checkpoint(tmp_path / name, on_warning=pytest.fail)

    here = make_context_on(HERE)
    training = begun(here)
    go_on(training, 0)
    kept = saved(here, training[1], "here")
    with two_devices() as elsewhere:
        there = make_context_on(elsewhere)
        theirs = begun(there)
        go_on(theirs, 0)
        for group, tensors in saved(there, theirs[1], "there").tensors.items():
            assert all(torch.equal(value, kept.tensors[group][name]) for name, value in tensors.items()), group
        resumed = make_context_on(elsewhere)
        restore(resumed, kept)
        again = begun(resumed)
        restore_optimizer(again[1], kept.tensors["optimizer"], kept.state["optimizer"])
        resumed.contrast.queue.load_state_dict(kept.tensors["queue"])
        further = go_on(again, 1)
    assert further == go_on(training, 1)


def test_answers_vectors_and_likelihoods_of_a_model_in_training(make_context_on, world_data):
    """Asked where the model is, told where the processor is."""
    features = {name: part.rows(slice(4)) for name, part in world_data.features.items()}
    asked, told = ["is the sun red?", "how many cats are there?"], ["a red sun.", "two cats."]

    def seen(ctx: TrainingContext) -> Figures:
        steps_of(ctx, fusing(ctx, "tune"))
        predictor = Predictor(ctx.model, ctx.tokenizer)
        answered = predictor.answer(asked, features, torch.tensor([0, 3]), longest=2)
        pictures, words = predictor.embed(features, told)
        likelihood = torch.cat(predictor.likelihood(features, [[0, 1]] * 4, told))
        assert answered.shares is not None
        tensors = {"shares": answered.shares, "pictures": pictures, "words": words, "likelihood": likelihood}
        assert not any(isinstance(value, Far) for value in tensors.values())
        return [{"text": "|".join(answered.texts)}, {name: value.tolist() for name, value in tensors.items()}]

    same_on_both(make_context_on, seen)


def test_answers(tiny_model, tiny_processor: AstreaProcessor, pictures):
    inputs = tiny_processor(
        images=[[picture] for picture in pictures[:2]],
        text=["<bos><image><user>is it red?<assistant>", "<bos><image><user>how many cats are there?<assistant>"],
    )
    how = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "suppress_tokens": [0, 1, 2, 3, 4, 5, 6]}
    # A copy: what other tests still hold of the shared one could not change its device.
    model = copy.deepcopy(tiny_model)
    here = model.generate(**inputs, **how)
    with moved_there(model):
        there = model.generate(**{name: value.to(ELSEWHERE) for name, value in inputs.items()}, **how)
        assert isinstance(there, Far)
        there = there.to(HERE)
    assert torch.equal(here, there)


@pytest.mark.parametrize("stage", ["align", "tune"])
def test_how_often_a_step_waits_does_not_grow_with_the_batch(make_context_on, stage):
    """A GPU that several processes share answers late."""
    with two_devices() as elsewhere:
        # Contributions are measured group by group, and seldom.
        ctx = make_context_on(elsewhere, regularisation={"contribution_every": 9})
        plan = plan_stages(ctx.recipe)[0 if stage == "align" else -1]
        objective = plan.build(ctx)
        only_learning(ctx, objective)
        counts = []
        for batch in (4, 16):
            schedule = SCHEDULE.model_copy(update={"steps": 2, "batch": batch})
            with Waits() as waits:
                run_steps(objective, schedule, build_optimizer(objective, schedule), start=1, on_step=lambda *_: None)
            counts.append(waits.count)
    assert counts[0] == counts[1]
    assert counts[0] < 40


def test_tensors_of_both_devices_do_not_meet():
    """What the other tests rest on."""
    with two_devices() as elsewhere:
        far, near = torch.ones(3, device=elsewhere), torch.ones(3)
        for mixed in (lambda: far + near, lambda: torch.where(near > 0, far, far), lambda: near[far.long()]):
            with pytest.raises(RuntimeError, match="device"):
                mixed()
        assert (far + torch.tensor(1.0))[near.long()].tolist() == [2, 2, 2]
        assert (far.to(HERE) + near).tolist() == (far + near.to(elsewhere)).tolist() == [2, 2, 2]
