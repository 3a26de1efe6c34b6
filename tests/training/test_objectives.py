"""Aligning, fusing and tuning: what learns, what stays as it was, and what the batches are made of."""

from __future__ import annotations

import math

import pytest
import torch

from astrea.data.packing import Turn
from astrea.fusion.calibration import Calibration
from astrea.training.context import TrainingContext
from astrea.training.loop import Objective, build_optimizer, run_steps
from astrea.training.stages.align import AlignObjective
from astrea.training.stages.instruct import InstructObjective
from astrea.training.stages.step import InstructStep
from astrea.training.trainer import plan_stages
from astrea.world.dataset import CAPTION_WEIGHT, GROUPS

NAMES = ["captioning", "classification", "segmentation", "detection"]
HEADS = {"picture_head", "text_head"}


def state(ctx: TrainingContext) -> dict[str, torch.Tensor]:
    parts = {"": ctx.model, "contrast.": ctx.contrast, "words.": ctx.words}
    return {name + k: v.clone() for name, part in parts.items() for k, v in part.state_dict().items()}


def learn(ctx: TrainingContext, objective: Objective, stage, steps: int = 3) -> tuple[set[str], set[str]]:
    """Run a few real steps; returns the names of what `trainable` promises without ever a gradient, and what moved."""
    promised = {id(p): name for name, p, _ in objective.trainable()}
    for module in (ctx.model, ctx.contrast, ctx.words):
        for parameter in module.parameters():
            parameter.requires_grad_(id(parameter) in promised)
    schedule = stage if steps is None else stage.lasting(steps)
    reached: set[str] = set()

    def on_step(step, figures):
        assert all(math.isfinite(v) for v in figures.values())
        reached.update(n for n, p, _ in objective.trainable() if p.grad is not None and p.grad.abs().sum() > 0)

    before = state(ctx)
    run_steps(objective, schedule, build_optimizer(objective, schedule), on_step=on_step)
    moved = {name for name, value in state(ctx).items() if not torch.equal(value, before[name])}
    return set(promised.values()) - reached, moved


def only(moved: set[str], *allowed: str) -> bool:
    return all(name.startswith(allowed) for name in moved)


# Progressive alignment


def align(ctx: TrainingContext, joining: str | None = "classification", offset: int = 0) -> AlignObjective:
    aligned = NAMES[: NAMES.index(joining)] if joining else []
    return AlignObjective(ctx, joining=joining, aligned=aligned, offset=offset)


@pytest.mark.parametrize("joining", [*NAMES, None])
def test_in_a_phase_of_alignment_one_adapter_and_the_heads_learn(make_shop, joining):
    ctx = make_shop()
    objective = align(ctx, joining)
    unreached, moved = learn(ctx, objective, ctx.recipe.align)
    assert unreached == set()
    learning = [joining] if joining else NAMES
    promised = {name.rsplit(".", 1)[0].split(".")[0] for name, _, _ in objective.trainable()}
    assert promised == {"adapters", *HEADS, "contrast", "words"}
    assert only(
        moved,
        *(f"model.alignment.adapters.{name}." for name in learning),
        *(f"model.alignment.{head}." for head in HEADS),
        "contrast.",
        "words.",
    )
    for name in learning:
        own = {f"model.alignment.{n}" for n, _, _ in objective.trainable() if n.startswith(f"adapters.{name}.")}
        assert own
        assert own <= moved
        # The momentum copy follows what learns, and only that.
        assert any(n.startswith(f"contrast.copy.adapters.{name}.") for n in moved)
    assert {n.split(".")[3] for n in moved if n.startswith("contrast.copy.adapters.")} == set(learning)
    assert {"contrast.log_temperature", "contrast.queue.ids", "words.scale", "words.bias"} <= moved
    assert not any("language_model" in n or "experts." in n or "fusion" in n for n in moved)


def test_the_losses_of_alignment_are_those_with_a_weight(make_shop):
    ctx = make_shop()
    first = align(ctx, "captioning")
    _, parts = first.loss(first.batch(0, 0, 8), 0)
    assert set(parts) == {"itc", "word"}  # nothing to agree with yet
    later = align(ctx, "detection")
    total, parts = later.loss(later.batch(0, 0, 8), 0)
    assert set(parts) == {"itc", "agree", "word"}
    assert total.item() == pytest.approx(sum(parts.values()), rel=1e-5)
    plain = make_shop(align__losses={"word": 1.0})
    objective = align(plain)
    assert set(objective.loss(objective.batch(0, 0, 8), 0)[1]) == {"word"}


def test_soft_targets_grow_over_the_whole_of_alignment(make_shop, monkeypatch):
    ctx = make_shop(align__steps=10)
    seen = []
    inner = ctx.contrast.loss
    monkeypatch.setattr(ctx.contrast, "loss", lambda *a, **own: seen.append(a[-1]) or inner(*a, **own))
    for offset, step in ((0, 0), (0, 2), (5, 0), (5, 5), (5, 9)):
        objective = align(ctx, "detection", offset)
        objective.loss(objective.batch(step, 0, 4), step)
    assert seen == pytest.approx([0, 0.08, 0.2, 0.4, 0.4])


def test_a_phase_begins_with_an_empty_queue(make_shop):
    ctx = make_shop()
    objective = align(ctx)
    objective.after_step(0)
    assert ctx.contrast.queue.ids.eq(-1).all()
    batch = objective.batch(0, 0, 8)
    objective.loss(batch, 0)
    objective.after_step(0)
    assert torch.equal(ctx.contrast.queue.ids[:8], batch[1].ids)
    align(ctx, "segmentation")
    assert ctx.contrast.queue.ids.eq(-1).all()


@pytest.mark.parametrize("accumulate", [1, 3])
def test_phases_of_alignment_go_on_in_the_data(make_shop, accumulate):
    """Sixty scenes: until they are used up no scene comes twice, across micro-steps, steps and phases."""
    ctx = make_shop(align__accumulate=accumulate, align__steps=10)
    plans = [plan for plan in plan_stages(ctx.recipe) if plan.name.startswith("align/")]
    assert [p.name for p in plans] == [f"align/{n}" for n in (*NAMES, "joint")]
    assert sum(p.schedule.steps for p in plans) == 10
    seen: list[int] = []
    for plan in plans:
        objective = plan.build(ctx)
        for step in range(plan.schedule.steps):
            for micro in range(accumulate):
                seen += objective.batch(step, micro, 2)[0].ids.tolist()
    assert len(seen) == 20 * accumulate
    assert len(set(seen)) == len(seen)
    assert "train scene " in objective.describe(objective.batch(0, 0, 2))


def test_a_batch_is_a_pure_function_of_the_step(make_shop):
    ctx = make_shop()
    objective = align(ctx)
    one, two = objective.batch(4, 0, 8), objective.batch(4, 0, 8)
    assert torch.equal(one[0].ids, two[0].ids)
    assert torch.equal(one[1].ids, two[1].ids)
    fuse = fusing(ctx)
    a, b, other = fuse.batch(4, 0, 8), fuse.batch(4, 0, 8), fuse.batch(5, 0, 8)
    assert torch.equal(a.packed.input_ids, b.packed.input_ids)
    assert torch.equal(a.present, b.present)
    assert not torch.equal(a.samples.ids, other.samples.ids)


# Fusing and tuning


def fusing(ctx: TrainingContext, name: str = "fuse") -> InstructObjective:
    return InstructObjective(ctx, name, getattr(ctx.recipe, name), offset=0)


def test_fusing_moves_adapters_heads_and_fusion(make_shop):
    ctx = make_shop()
    ctx.model.fusion.allocator.load.copy_(torch.tensor([0.7, 0.1, 0.1, 0.1]))
    unreached, moved = learn(ctx, fusing(ctx), ctx.recipe.fuse, steps=4)
    assert unreached == set()
    parts = ("model.alignment.", "model.fusion.", "contrast.")
    assert only(moved, *parts)
    assert all(any(name.startswith(part) for name in moved) for part in parts)
    assert {f"model.alignment.{n}" for n, _ in ctx.model.alignment.named_parameters()} <= moved
    assert {"model.fusion.residual_keep", "model.fusion.allocator.load_bias", "contrast.queue.picture"} <= moved
    assert not any("experts." in name for name in moved)


def test_tuning_moves_the_language_model_too_and_never_an_expert(make_shop):
    ctx = make_shop()
    objective = fusing(ctx, "tune")
    unreached, moved = learn(ctx, objective, ctx.recipe.tune, steps=4)
    assert unreached == set()
    assert {f"model.language_model.{n}" for n, _ in ctx.model.model.language_model.named_parameters()} <= moved
    assert only(moved, "model.alignment.", "model.fusion.", "model.language_model.", "lm_head.", "contrast.")
    assert not any(module.training for module in ctx.model.experts.modules())


@pytest.mark.parametrize("part", ["adapters", "heads", "fusion", "language_model"])
def test_a_stage_trains_what_its_recipe_says(make_shop, part):
    ctx = make_shop(fuse__train=[part])
    objective = fusing(ctx)
    unreached, moved = learn(ctx, objective, ctx.recipe.fuse)
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


def test_the_language_model_has_a_rate_of_its_own(make_shop):
    ctx = make_shop(tune__llm_lr_scale=0.3)
    rates = [(name, scale) for name, _, scale in fusing(ctx, "tune").trainable()]
    scales = {
        name.split(".")[0]: scale for name, scale in rates if "fusion.mixer" in name or not name.startswith("fusion.")
    }
    assert scales["language_model"] == 0.3
    assert {scales[n] for n in ("adapters", "fusion", "picture_head", "contrast")} == {1.0}


def test_heads_do_not_learn_without_their_loss(make_shop):
    ctx = make_shop(fuse__losses={"lm": 1.0})
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
def test_what_is_switched_off_is_not_there_and_the_rest_learns(make_shop, options, missing):
    ctx = make_shop(model=options | {"contrast_width": 16, "adapter_hidden": 24})
    assert getattr(ctx.model.fusion, missing) is None
    unreached, _ = learn(ctx, fusing(ctx), ctx.recipe.fuse, steps=3)
    assert not unreached


def test_rows_are_the_questions_and_the_caption(make_shop):
    ctx = make_shop()
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


def test_an_expert_is_lost_as_often_as_told(make_shop):
    ctx = make_shop(regularisation={"expert_dropout": 0.4})
    present = fusing(ctx).batch(0, 0, 1000).present
    lost = ~present
    assert lost.sum(1).max() == 1
    assert abs(lost.any(1).float().mean().item() - 0.4) < 0.08  # five standard deviations
    assert (lost.float().mean(0) - 0.1).abs().max() < 0.05
    assert fusing(make_shop(regularisation={"expert_dropout": 0.0})).batch(0, 0, 100).present.all()


def test_the_residual_fades_over_the_stage(make_shop):
    ctx = make_shop(fuse__steps=10, model={"residual": True, "residual_end": 0.8})
    objective = fusing(ctx)
    seen = []
    for step in (0, 5, 10, 12):
        objective.loss(objective.batch(step, 0, 2), step)
        seen.append(float(ctx.model.fusion.residual_keep))
    assert seen == pytest.approx([1.0, 0.9, 0.8, 0.8])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_small_batches(make_shop, size):
    """Fewer rows than a counterfactual pass takes, and none where all experts are present."""
    ctx = make_shop(regularisation={"expert_dropout": 0.95, "contribution_every": 1})
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


def test_the_load_counts_whole_rows_only(make_shop):
    ctx = make_shop(regularisation={"expert_dropout": 0.5, "load_rate": 0.1})
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
def test_contribution_is_the_loss_without_minus_the_loss_with(make_shop):
    ctx = make_shop(regularisation={"expert_dropout": 0.0})
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


def test_contribution_pulls_the_shares_of_its_group(make_shop, monkeypatch):
    """Fifty steps of that loss alone, with detection said to matter for every question."""
    ctx = make_shop(
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


def test_contribution_is_measured_every_so_often(make_shop, monkeypatch):
    ctx = make_shop(regularisation={"contribution_every": 3})
    objective = fusing(ctx)
    calls = []
    measured = InstructStep.leave_one_out
    monkeypatch.setattr(InstructStep, "leave_one_out", lambda *a: calls.append(1) or measured(*a))
    for step in range(7):
        objective.loss(objective.batch(step, 0, 2), step)
    assert len(calls) == 3
    off = make_shop(regularisation={"contribution_every": 0})
    silent = fusing(off)
    assert "contribution" not in silent.loss(silent.batch(0, 0, 2), 0)[1]


def test_contributions_are_measured_before_activations_are_kept(make_shop, monkeypatch):
    shop = make_shop(regularisation={"contribution_every": 1})
    objective = fusing(shop)
    order = []
    monkeypatch.setattr(InstructStep, "leave_one_out", lambda *a: order.append("measured") or torch.zeros(0, 1, 4))
    answering = shop.model.register_forward_pre_hook(lambda *a: order.append("answered"))
    objective.loss(objective.batch(0, 0, 4), 0)
    answering.remove()
    # Both at once would need the memory of both.
    assert order == ["measured", "answered"]


def test_keys_see_every_expert_and_come_from_the_copy(make_shop):
    ctx = make_shop(regularisation={"expert_dropout": 0.9, "corruption": 0.9})
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
