"""Batches in which rows of many pictures, of one and of none meet: what learns from them, and what does not count."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from astrea.fusion.registry import STRATEGIES
from astrea.training.stages.batch import backfill
from astrea.training.stages.next_token import NextTokenAlignObjective
from astrea.training.stages.step import by_row
from own_contexts import fusing, learned, only_learning


def model_of(strategy: str) -> dict[str, Any]:
    options = {"expert": "detection"} if strategy == "single" else {}
    return {"strategy": strategy, "contrast_width": 16, "options": options}


@pytest.mark.parametrize("stage", ["fuse", "tune"])
def test_every_kind_of_row_in_one_batch_trains_what_the_stage_trains(make_own, stage):
    ctx = make_own("mixed.jsonl")
    objective = fusing(ctx, stage)
    reached = learned(ctx, objective, steps=3, batch=16)
    parts = {name.split(".")[0] for name in reached}
    assert parts == {"adapters", "picture_head", "text_head", "contrast", "fusion"} | (
        {"language_model"} if stage == "tune" else set()
    )
    assert {name.split(".")[1] for name in reached if name.startswith("adapters")} == set(ctx.model.experts.names)
    assert ctx.model.fusion.calibration.contributions.seen.tolist() == [3]
    assert 0.5 < ctx.model.fusion.allocator.load.sum() < 1  # some goes to nobody in particular
    assert ctx.contrast.queue.ids.min() >= 0


@pytest.mark.parametrize("stage", ["fuse", "tune"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_trains_on_such_rows(make_own, strategy, stage):
    ctx = make_own("mixed.jsonl", "text.jsonl", model=model_of(strategy))
    objective = fusing(ctx, stage)
    batch = objective.batch(0, 0, 8)
    if objective.fusion.per_question:
        assert batch.groups.shape == (len(batch.packed.input_ids), 1)
        assert len(batch.groups) > 8
        images = (batch.packed.input_ids == ctx.packer.image).sum(1) // ctx.model.num_visual_tokens
        assert torch.equal(images, torch.bincount(batch.row, minlength=len(batch.groups)))
    reached = learned(ctx, objective)
    assert any(name.startswith("adapters.detection") for name in reached)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("stage", ["fuse", "tune"])
def test_a_batch_without_any_picture_hurts_nothing(make_own, strategy, stage):
    ctx = make_own("text.jsonl", model=model_of(strategy))
    before = {name: value.clone() for name, value in ctx.model.state_dict().items()}
    objective = fusing(ctx, stage)
    batch = objective.batch(0, 0, 4)
    assert (batch.samples.pictures, len(batch.shown), batch.samples.encode()) == (0, 0, {})
    assert batch.groups.eq(-1).all()
    assert not batch.complete().any()
    reached = learned(ctx, objective, batch=4)
    assert {name.split(".")[0] for name in reached} == ({"language_model"} if stage == "tune" else set())
    moved = {name for name, value in ctx.model.state_dict().items() if not torch.equal(value, before[name])}
    assert all(name.startswith(("model.language_model.", "model.fusion.", "lm_head.")) for name in moved)
    assert not any(value.any() for value in ctx.model.fusion.training_state().values())
    assert ctx.contrast.queue.ids.eq(-1).all()


def test_next_token_alignment_takes_such_rows_and_batches_without_pictures(make_own):
    ctx = make_own("mixed.jsonl", align__kind="next_token", align__losses={})
    reached = learned(ctx, NextTokenAlignObjective(ctx, joining="detection", offset=0))
    assert reached
    assert all(name.startswith("adapters.detection") for name in reached)
    blind = make_own("text.jsonl")
    assert learned(blind, NextTokenAlignObjective(blind, joining="detection", offset=0)) == set()


def test_rows_without_pictures_count_nowhere(make_own):
    """The same losses about pictures and the same measurements, whatever text stands beside them."""
    ctx = make_own("mixed.jsonl", regularisation={"contribution_every": 1, "expert_dropout": 0, "corruption": 0})
    objective = fusing(ctx)
    batch = objective.batch(0, 0, 16)
    groups = batch.groups.clone()
    blind = torch.bincount(batch.row, minlength=16) == 0
    assert 0 < blind.sum() < 16
    assert groups[blind].eq(-1).all()
    assert (groups[~blind][:, 0] == 0).all()
    assert torch.equal(batch.complete(), ~blind)
    only_learning(ctx, objective)
    _, figures = objective.loss(batch, 0)
    assert torch.isfinite(torch.tensor(list(figures.values()))).all()
    (taken,) = ctx.model.fusion.calibration.taken
    assert len(taken) == int((groups >= 0).sum())
    assert (taken.sum(-1) > 0).all()


def test_an_own_text_takes_the_place_of_one_without_a_picture(make_own):
    ctx = make_own("mixed.jsonl")
    objective = fusing(ctx)
    batch = objective.batch(0, 0, 16)
    only_learning(ctx, objective)
    objective.loss(batch, 0)
    ((pictures, texts, ids),) = objective.losses["itc"].pending
    place = backfill(batch.samples.first >= 0)
    assert len(pictures) == len(texts) == 16
    assert torch.equal(ids, batch.captions.ids[place])
    assert (batch.samples.first[place] >= 0).all()


def test_lent_places():
    assert backfill(torch.tensor([True, False, False, True])).tolist() == [0, 3, 3, 3]
    assert backfill(torch.tensor([False, True, False])).tolist() == [1, 1, 1]
    assert backfill(torch.tensor([True, True])).tolist() == [0, 1]


def test_shares_of_a_row_are_the_mean_over_its_pictures():
    shares = torch.rand(3, 2, 4)
    groups = torch.tensor([[0, 0, -1], [-1, -1, -1], [0, -1, -1]])
    found = by_row(shares, torch.tensor([0, 0, 2]), groups, torch.zeros(4))
    assert found.shape == (3, 3, 4)
    torch.testing.assert_close(found[0, :2], shares[:2].mean(0))
    torch.testing.assert_close(found[2, :2], shares[2])
    assert found[1].eq(0).all()
    assert found[:, 2].eq(0).all()
    assert torch.equal(by_row(None, torch.zeros(0).long(), groups, torch.zeros(4)), torch.zeros(3, 3, 4))


def test_a_single_picture_is_a_batch_too(make_own):
    ctx = make_own("captions.jsonl")
    assert learned(ctx, fusing(ctx, "tune"), batch=1)
