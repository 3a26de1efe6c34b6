"""Adapters that start at words, and alignment, are no property of a fusion strategy: peers take part alike."""

from __future__ import annotations

import pytest
import torch

from astrea.training.loop import build_optimizer, run_steps
from astrea.training.stages.align import AlignObjective
from astrea.training.trainable import train_only

SMALL = {"contrast_width": 16, "adapter_hidden": 24}


def aligned(make_context, strategy: str, *, word_start: bool, steps: int = 10):
    """The losses of a few steps of alignment, and the context after them."""
    ctx = make_context(
        model=SMALL | {"strategy": strategy, "word_start": word_start},
        align__losses={"word": 1.0, "itc": 0.1},
        align__lr=0.01,
    )
    objective = AlignObjective(ctx, joining="classification", aligned=[], offset=0)
    train_only((p for _, p, _ in objective.trainable()), (ctx.model, ctx.contrast, ctx.words))
    before = {name: value.clone() for name, value in ctx.model.state_dict().items()}
    losses: list[float] = []
    schedule = ctx.recipe.align.lasting(steps).model_copy(update={"warmup": 1})
    optimizer = build_optimizer(objective, schedule)
    run_steps(objective, schedule, optimizer, on_step=lambda step, figures: losses.append(figures["word"]))
    moved = {name for name, value in ctx.model.state_dict().items() if not torch.equal(value, before[name])}
    return losses, moved


@pytest.mark.parametrize("strategy", ["mova", "routed"])
def test_a_peer_is_aligned_as_astrea_is(make_context, strategy):
    losses, moved = aligned(make_context, strategy, word_start=True)
    others, others_moved = aligned(make_context, "astrea", word_start=True)
    assert moved == others_moved
    assert any(name.startswith("model.alignment.adapters.classification.") for name in moved)
    assert not any("fusion" in name or "language_model" in name for name in moved)
    # The fusion takes no part in it: what the same adapter learns is the same.
    assert losses[0] == pytest.approx(others[0], rel=1e-4)
    assert sum(losses[-3:]) < sum(losses[:3])
    # Where adapters start at the words of their labels, the words of a caption find their tokens from the beginning.
    assert losses[0] < aligned(make_context, strategy, word_start=False, steps=1)[0][0]
