"""Aligning: what learns, what stays as it was, and what the batches are made of."""

from __future__ import annotations

import pytest
import torch

from astrea.training.context import TrainingContext
from astrea.training.plan import plan_stages
from astrea.training.stages.align import AlignObjective
from objective_steps import only, take_steps
from own_contexts import fusing

NAMES = ["captioning", "classification", "segmentation", "detection"]
HEADS = {"picture_head", "text_head"}


def align(ctx: TrainingContext, joining: str | None = "classification", offset: int = 0) -> AlignObjective:
    aligned = NAMES[: NAMES.index(joining)] if joining else []
    return AlignObjective(ctx, joining=joining, aligned=aligned, offset=offset)


@pytest.mark.parametrize("joining", [*NAMES, None])
def test_in_a_phase_of_alignment_one_adapter_and_the_heads_learn(make_context, joining):
    ctx = make_context()
    objective = align(ctx, joining)
    unreached, moved = take_steps(ctx, objective, ctx.recipe.align)
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


def test_the_losses_of_alignment_are_those_with_a_weight(make_context):
    ctx = make_context()
    first = align(ctx, "captioning")
    _, parts = first.loss(first.batch(0, 0, 8), 0)
    assert set(parts) == {"itc", "word"}  # nothing to agree with yet
    later = align(ctx, "detection")
    total, parts = later.loss(later.batch(0, 0, 8), 0)
    assert set(parts) == {"itc", "agree", "word"}
    assert total.item() == pytest.approx(sum(parts.values()), rel=1e-5)
    plain = make_context(align__losses={"word": 1.0})
    objective = align(plain)
    assert set(objective.loss(objective.batch(0, 0, 8), 0)[1]) == {"word"}


def test_soft_targets_grow_over_the_whole_of_alignment(make_context, monkeypatch):
    ctx = make_context(align__steps=10)
    seen = []
    inner = ctx.contrast.loss
    monkeypatch.setattr(ctx.contrast, "loss", lambda *a, **own: seen.append(a[-1]) or inner(*a, **own))
    for offset, step in ((0, 0), (0, 2), (5, 0), (5, 5), (5, 9)):
        objective = align(ctx, "detection", offset)
        objective.loss(objective.batch(step, 0, 4), step)
    assert seen == pytest.approx([0, 0.08, 0.2, 0.4, 0.4])


def test_a_phase_begins_with_an_empty_queue(make_context):
    ctx = make_context()
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
def test_phases_of_alignment_go_on_in_the_data(make_context, accumulate):
    """Sixty scenes: until they are used up no scene comes twice, across micro-steps, steps and phases."""
    ctx = make_context(align__accumulate=accumulate, align__steps=10)
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


def test_a_batch_is_a_pure_function_of_the_step(make_context):
    ctx = make_context()
    objective = align(ctx)
    one, two = objective.batch(4, 0, 8), objective.batch(4, 0, 8)
    assert torch.equal(one[0].ids, two[0].ids)
    assert torch.equal(one[1].ids, two[1].ids)
    fuse = fusing(ctx)
    a, b, other = fuse.batch(4, 0, 8), fuse.batch(4, 0, 8), fuse.batch(5, 0, 8)
    assert torch.equal(a.packed.input_ids, b.packed.input_ids)
    assert torch.equal(a.present, b.present)
    assert not torch.equal(a.samples.ids, other.samples.ids)
