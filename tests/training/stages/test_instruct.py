"""Fusing and tuning: what learns, what stays as it was, and what the batches are made of."""

from __future__ import annotations

import pytest
import torch

from astrea.data.packing import Turn
from astrea.fusion.calibration import Calibration
from astrea.training.loop import build_optimizer, run_steps
from astrea.training.stages.step import InstructStep
from astrea.world.dataset import GROUPS
from astrea.world.scene_data import CAPTION_WEIGHT
from objective_steps import only, take_steps
from own_contexts import fusing


def test_fusing_moves_adapters_heads_and_fusion(make_context):
    ctx = make_context()
    ctx.model.fusion.allocator.load.copy_(torch.tensor([0.7, 0.1, 0.1, 0.1]))
    unreached, moved = take_steps(ctx, fusing(ctx), ctx.recipe.fuse, steps=4)
    assert unreached == set()
    parts = ("model.alignment.", "model.fusion.", "contrast.")
    assert only(moved, *parts)
    assert all(any(name.startswith(part) for name in moved) for part in parts)
    assert {f"model.alignment.{n}" for n, _ in ctx.model.alignment.named_parameters()} <= moved
    assert {"model.fusion.residual_keep", "model.fusion.allocator.load_bias", "contrast.queue.picture"} <= moved
    assert not any("experts." in name for name in moved)


def test_tuning_moves_the_language_model_too_and_never_an_expert(make_context):
    ctx = make_context()
    objective = fusing(ctx, "tune")
    unreached, moved = take_steps(ctx, objective, ctx.recipe.tune, steps=4)
    assert unreached == set()
    assert {f"model.language_model.{n}" for n, _ in ctx.model.model.language_model.named_parameters()} <= moved
    assert only(moved, "model.alignment.", "model.fusion.", "model.language_model.", "lm_head.", "contrast.")
    assert not any(module.training for module in ctx.model.experts.modules())


@pytest.mark.parametrize("part", ["adapters", "heads", "fusion", "language_model"])
def test_a_stage_trains_what_its_recipe_says(make_context, part):
    ctx = make_context(fuse__train=[part])
    objective = fusing(ctx)
    unreached, moved = take_steps(ctx, objective, ctx.recipe.fuse)
    trained = {"adapters": "adapters", "heads": "_head", "fusion": "fusion", "language_model": "language_model"}
    unlearned = {"model.fusion.residual_keep", "model.fusion.allocator.load_bias", "model.fusion.allocator.load"}
    learned = {n for n in moved if n.startswith("model.")} - unlearned
    assert learned
    assert all(trained[part] in name for name in learned)
    scales = {
        scale for name, _, scale in objective.trainable() if not name.startswith(("fusion.trust.", "fusion.allocator."))
    }
    assert scales <= {1.0}
    assert not unreached


def test_the_language_model_has_a_rate_of_its_own(make_context):
    ctx = make_context(tune__llm_lr_scale=0.3)
    rates = [(name, scale) for name, _, scale in fusing(ctx, "tune").trainable()]
    scales = {
        name.split(".")[0]: scale for name, scale in rates if "fusion.mixer" in name or not name.startswith("fusion.")
    }
    assert scales["language_model"] == 0.3
    assert {scales[n] for n in ("adapters", "fusion", "picture_head", "contrast")} == {1.0}


def test_heads_do_not_learn_without_their_loss(make_context):
    ctx = make_context(fuse__losses={"lm": 1.0})
    objective = fusing(ctx)
    assert {name.split(".")[0] for name, _, _ in objective.trainable()} == {"adapters", "fusion"}
    _, parts = objective.loss(objective.batch(0, 0, 4), 0)
    assert set(parts) == {"lm"}
    objective.after_step(0)
    assert ctx.contrast.queue.ids.eq(-1).all()


@pytest.mark.parametrize(
    ("options", "missing"),
    [({"gate": False}, "allocator"), ({"mixer": False}, "mixer"), ({"residual": False}, "residual")],
)
def test_what_is_switched_off_is_not_there_and_the_rest_learns(make_context, options, missing):
    ctx = make_context(model=options | {"contrast_width": 16, "adapter_hidden": 24})
    assert getattr(ctx.model.fusion, missing) is None
    unreached, _ = take_steps(ctx, fusing(ctx), ctx.recipe.fuse, steps=3)
    assert not unreached


def test_rows_are_the_questions_and_the_caption(make_context):
    ctx = make_context()
    batch = fusing(ctx).batch(0, 0, 8)
    assert batch.groups.shape[1] == int(batch.packed.segments.max())
    for row, index in enumerate(batch.samples.ids.tolist()):
        asked = ctx.data.questions[index]
        groups = [GROUPS[g] for g in batch.groups[row].tolist() if g >= 0]
        assert groups == [*(q.template for q in asked), "caption"]
        told = ctx.packer.pack([[Turn(q.text, q.answer) for q in asked]]).input_ids[0]
        assert batch.packed.input_ids[row, : len(told)].tolist() == told.tolist()
        caption = (batch.packed.segments[row] == len(groups)) & (batch.packed.labels[row] != -100)
        spoken = batch.packed.labels[row][caption][:-1].tolist()
        assert spoken == ctx.packer.ids(ctx.data.captions[index][int(batch.captions.which[row])])
        assert batch.packed.label_weights[row][caption].eq(CAPTION_WEIGHT).all()


def test_an_expert_is_lost_as_often_as_told(make_context):
    ctx = make_context(regularisation={"expert_dropout": 0.4})
    present = fusing(ctx).batch(0, 0, 1000).present
    lost = ~present
    assert lost.sum(1).max() == 1
    assert abs(lost.any(1).float().mean().item() - 0.4) < 0.08  # five standard deviations
    assert (lost.float().mean(0) - 0.1).abs().max() < 0.05
    assert fusing(make_context(regularisation={"expert_dropout": 0.0})).batch(0, 0, 100).present.all()


def test_the_residual_fades_over_the_stage(make_context):
    ctx = make_context(fuse__steps=10, model={"residual": True, "residual_end": 0.8})
    objective = fusing(ctx)
    seen = []
    for step in (0, 5, 10, 12):
        objective.loss(objective.batch(step, 0, 2), step)
        seen.append(float(ctx.model.fusion.residual_keep))
    assert seen == pytest.approx([1.0, 0.9, 0.8, 0.8])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_small_batches(make_context, size):
    """Fewer rows than a counterfactual pass takes, and none where all experts are present."""
    ctx = make_context(regularisation={"expert_dropout": 0.95, "contribution_every": 1})
    objective = fusing(ctx)
    whole = []
    for step in range(4):
        batch = objective.batch(step, 0, size)
        whole.append(bool(batch.present.all(1).any()))
        loss, parts = objective.loss(batch, step)
        assert loss.isfinite()
        assert parts["contribution"] >= -1e-6
        loss.backward()
        objective.after_step(step)
    assert not all(whole)
    assert ctx.model.fusion.calibration.contributions.table.abs().sum() > 0


def test_the_load_counts_whole_rows_only(make_context):
    ctx = make_context(regularisation={"expert_dropout": 0.5, "load_rate": 0.1})
    ctx.model.fusion.allocator.load.copy_(torch.tensor([0.7, 0.1, 0.1, 0.1]))
    objective = fusing(ctx)
    batch = objective.batch(0, 0, 8)
    objective.loss(batch, 0)
    whole = batch.present.all(1)
    assert 0 < whole.sum() < 8
    (shares,) = ctx.model.fusion.calibration.taken
    assert len(shares) == int((batch.groups[whole] >= 0).sum())
    assert shares.gt(0).all()
    objective.after_step(0)
    assert ctx.model.fusion.allocator.load_bias.abs().max() > 0


@torch.no_grad()
def test_contribution_is_the_loss_without_minus_the_loss_with(make_context):
    ctx = make_context(regularisation={"expert_dropout": 0.0})
    objective = fusing(ctx)
    for parameter in ctx.model.parameters():
        parameter.mul_(1.5)
    batch = objective.batch(0, 0, 3)
    features = ctx.encode(batch.samples)
    step = InstructStep(ctx, "fuse", ctx.recipe.fuse, objective.weights, batch, 0)
    ctx.model.fusion.calibration.measure(step)

    def losses(present):
        out = ctx.model(**batch.packed.model_inputs(), features=features, present=present).logits.log_softmax(-1)
        found = {}
        for row in range(3):
            for s in range(batch.groups.shape[1]):
                at = ((batch.packed.segments[row] == s + 1) & (batch.packed.labels[row] != -100)).nonzero().flatten()
                if len(at):
                    said = [-float(out[row, i - 1, batch.packed.labels[row, i]]) for i in at]
                    found[row, s] = sum(said) / len(said)
        return found

    base, table = losses(torch.ones(3, 4).bool()), ctx.model.fusion.calibration.contributions.table
    for expert in range(4):
        present = torch.ones(3, 4).bool()
        present[:, expert] = False
        lost = losses(present)
        for group in range(len(GROUPS)):
            mine = [lost[k] - base[k] for k in base if int(batch.groups[k]) == group]
            wanted = sum(mine) / len(mine) if mine else 0.0
            assert float(table[group, expert]) == pytest.approx(wanted, abs=1e-4)
    assert table.abs().max() > 1e-3


def test_contribution_pulls_the_shares_of_its_group(make_context, monkeypatch):
    """Fifty steps of that loss alone, with detection said to matter for every question."""
    ctx = make_context(
        fuse__train=["fusion"], fuse__losses={"contribution": 1.0}, fuse__lr=0.02, fuse__steps=50,
        regularisation={"expert_dropout": 0.0, "contribution_every": 1000, "load_rate": 0.0},
    )  # fmt: skip
    objective = fusing(ctx)
    monkeypatch.setattr(Calibration, "measure", lambda *a: None)
    ctx.model.fusion.calibration.contributions.table[:, 3] = 9.0
    ctx.model.fusion.calibration.contributions.seen[:] = 1
    shares = []
    schedule = ctx.recipe.fuse

    forget = objective.after_step

    def after_step(step):
        shares.append(torch.cat(ctx.model.fusion.calibration.taken).mean(0))
        forget(step)

    objective.after_step = after_step
    run_steps(objective, schedule, build_optimizer(objective, schedule), on_step=lambda step, figures: None)
    target = ctx.model.fusion.calibration.contributions.targets(torch.zeros(4))[0]
    assert target[3] > 0.6
    assert abs(shares[0][3].item() - 0.2) < 0.1
    assert torch.allclose(shares[-1], target[:4], atol=0.1)


def test_contribution_is_measured_every_so_often(make_context, monkeypatch):
    ctx = make_context(regularisation={"contribution_every": 3})
    objective = fusing(ctx)
    calls = []
    measured = InstructStep.leave_one_out
    monkeypatch.setattr(InstructStep, "leave_one_out", lambda *a: calls.append(1) or measured(*a))
    for step in range(7):
        objective.loss(objective.batch(step, 0, 2), step)
    assert len(calls) == 3
    off = make_context(regularisation={"contribution_every": 0})
    silent = fusing(off)
    assert "contribution" not in silent.loss(silent.batch(0, 0, 2), 0)[1]


def test_contributions_are_measured_before_activations_are_kept(make_context, monkeypatch):
    ctx = make_context(regularisation={"contribution_every": 1})
    objective = fusing(ctx)
    order = []
    monkeypatch.setattr(InstructStep, "leave_one_out", lambda *a: order.append("measured") or torch.zeros(0, 1, 4))
    answering = ctx.model.register_forward_pre_hook(lambda *a: order.append("answered"))
    objective.loss(objective.batch(0, 0, 4), 0)
    answering.remove()
    # Both at once would need the memory of both.
    assert order == ["measured", "answered"]


def test_keys_see_every_expert_and_come_from_the_copy(make_context):
    ctx = make_context(regularisation={"expert_dropout": 0.9, "corruption": 0.9})
    objective = fusing(ctx)
    with torch.no_grad():
        for parameter in ctx.model.alignment.picture_head.parameters():
            parameter.add_(torch.randn_like(parameter))
    batch = objective.batch(0, 0, 4)
    objective.loss(batch, 0)
    ((key, text_key, ids),) = objective.losses["itc"].pending
    features = ctx.encode(batch.samples)
    with torch.no_grad():
        assert torch.equal(key, ctx.model.picture_vectors(features, alignment=ctx.contrast.copy))
        assert not torch.allclose(key, ctx.model.picture_vectors(features), atol=1e-2)
        states = ctx.text_states(batch.captions, slice(None))
        assert torch.equal(text_key, ctx.contrast.copy.text_head(states))
    assert torch.equal(ids, batch.captions.ids)
    assert not key.requires_grad
