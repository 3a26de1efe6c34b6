"""The loop, on a straight line."""

from __future__ import annotations

import math

import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.recipes.recipe import Schedule
from astrea.training.loop import Objective, build_optimizer, run_steps


class Line(Objective):
    """Least squares on fixed points; micro-step m of a step reads its own rows."""

    def __init__(self, spoil: tuple[int, int] | None = None, *, scale: float = 1.0, frozen: bool = False) -> None:
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 2)
        self.x = torch.randn(64, 3)
        self.y = self.x @ torch.randn(3, 2) + 1
        self.spoil, self.scale, self.frozen = spoil, scale, frozen
        self.after: list[int] = []

    def trainable(self):
        return [] if self.frozen else [(n, p, self.scale) for n, p in self.layer.named_parameters()]

    def batch(self, step, micro, size):
        start = (micro * size) % 64
        return step, micro, slice(start, start + size)

    def loss(self, batch, step):
        where, micro, rows = batch
        assert where == step
        found = (self.layer(self.x[rows]) - self.y[rows]).square().mean()
        if self.spoil == (step, micro):
            found = found * float("nan")
        return found, {"rows": float(rows.stop - rows.start)}

    def after_step(self, step):
        self.after.append(step)

    def describe(self, batch):
        return f"rows {batch[2].start} to {batch[2].stop}"


class Steep(Line):
    """A finite loss with a gradient that is not."""

    def loss(self, batch, step):
        return (self.layer.weight.sum() * 0).sqrt() if step == 1 else super().loss(batch, step)[0], {}


def fit(objective: Objective, schedule: Schedule, start: int = 0, optimizer=None) -> list[dict[str, float]]:
    seen: list[dict[str, float]] = []
    optimizer = optimizer or build_optimizer(objective, schedule)
    keep = lambda step, figures: seen.append(figures | {"step": step})  # noqa: E731
    run_steps(objective, schedule, optimizer, start=start, on_step=keep)
    return seen


def weights(objective: Line) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in objective.layer.parameters()])


def test_it_learns():
    line = Line()
    seen = fit(line, Schedule(steps=200, batch=64, lr=0.1))
    assert seen[-1]["loss"] < 0.02 * seen[0]["loss"]
    assert [s["step"] for s in seen] == line.after == list(range(200))
    assert seen[0]["rows"] == 64


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_are_one_large_batch(parts):
    whole, split = Line(), Line()
    one = fit(whole, Schedule(steps=12, batch=32, lr=0.05, weight_decay=0.1))
    two = fit(split, Schedule(steps=12, batch=32 // parts, lr=0.05, weight_decay=0.1, accumulate=parts))
    assert torch.allclose(weights(whole), weights(split), atol=1e-5)
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)
    assert two[0]["rows"] == 32 / parts
    assert split.after == list(range(12))


def test_the_learning_rate_rises_and_falls_as_a_cosine():
    schedule = Schedule(steps=110, batch=1, lr=2.0, warmup=10, final=0.1)
    assert [schedule.lr_at(i) for i in (0, 4, 9)] == pytest.approx([0.2, 1.0, 2.0])
    assert schedule.lr_at(10) == pytest.approx(2.0)
    assert schedule.lr_at(60) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert schedule.lr_at(35) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4))))
    assert schedule.lr_at(110) == schedule.lr_at(500) == pytest.approx(0.2)
    assert all(schedule.lr_at(i) >= schedule.lr_at(i + 1) for i in range(10, 120))


def test_the_optimizer_runs_at_the_scheduled_rate_times_the_scale():
    line = Line(scale=0.25)
    schedule = Schedule(steps=5, batch=8, lr=0.1, warmup=3)
    optimizer = build_optimizer(line, schedule)
    rates = []
    run_steps(line, schedule, optimizer, on_step=lambda s, f: rates.append((f["lr"], optimizer.param_groups[0]["lr"])))
    assert [r for r, _ in rates] == pytest.approx([schedule.lr_at(i) for i in range(5)])
    assert [r for _, r in rates] == pytest.approx([0.25 * schedule.lr_at(i) for i in range(5)])


def test_only_matrices_decay_and_scales_have_groups_of_their_own():
    class Two(Line):
        def trainable(self):
            yield "weight", self.layer.weight, 1.0
            yield "bias", self.layer.bias, 0.5

    line = Two()
    groups = build_optimizer(line, Schedule(steps=1, batch=1, lr=0.1, weight_decay=0.3)).param_groups
    found = {(g["scale"], g["weight_decay"]): [p.ndim for p in g["params"]] for g in groups}
    assert found == {(1.0, 0.3): [2], (0.5, 0.0): [1]}


def test_a_gradient_is_clipped_as_a_whole():
    line = Line()
    schedule = Schedule(steps=1, batch=8, lr=0.1, clip=0.01)
    seen = fit(line, schedule)
    assert seen[0]["grad_norm"] > 0.5
    clipped = torch.cat([p.grad.flatten() for p in line.layer.parameters()])
    assert clipped.norm().item() == pytest.approx(0.01, rel=1e-3)
    free = Line()
    fit(free, Schedule(steps=1, batch=8, lr=0.1, clip=1e9))
    whole = torch.cat([p.grad.flatten() for p in free.layer.parameters()])
    assert torch.allclose(clipped / clipped.norm(), whole / whole.norm(), atol=1e-5)


@pytest.mark.parametrize("micro", [0, 1])
def test_a_nan_loss_names_step_and_samples_and_changes_nothing(micro):
    line = Line(spoil=(3, micro))
    schedule = Schedule(steps=9, batch=16, lr=0.1, accumulate=2)
    good = Line()
    fit(good, Schedule(steps=3, batch=16, lr=schedule.lr, accumulate=2, warmup=schedule.warmup))
    with pytest.raises(AstreaError) as caught:
        fit(line, schedule)
    assert "nan" in caught.value.message
    assert "step 3" in caught.value.message
    assert f"rows {16 * micro} to {16 * micro + 16}" in caught.value.message
    assert caught.value.hint
    assert torch.equal(weights(line), weights(good))
    assert line.after == [0, 1, 2]


def test_a_gradient_that_is_not_finite_changes_nothing():
    line, good = Steep(), Line()
    fit(good, Schedule(steps=1, batch=8, lr=0.1))
    with pytest.raises(AstreaError) as caught:
        fit(line, Schedule(steps=4, batch=8, lr=0.1))
    assert "gradient" in caught.value.message
    assert "step 1" in caught.value.message
    assert "rows 0 to 8" in caught.value.message
    assert torch.equal(weights(line), weights(good))


def test_stopping_and_going_on_is_the_same_as_going_through():
    schedule = Schedule(steps=10, batch=8, lr=0.1)
    through, halves = Line(), Line()
    fit(through, schedule)
    optimizer = build_optimizer(halves, schedule)

    class Stop(Exception):
        pass

    def stop(step, figures):
        if step == 3:
            raise Stop

    with pytest.raises(Stop):
        run_steps(halves, schedule, optimizer, on_step=stop)
    rest = fit(halves, schedule, start=4, optimizer=optimizer)
    assert [s["step"] for s in rest] == list(range(4, 10))
    assert torch.equal(weights(through), weights(halves))


def test_nothing_to_train_is_an_error():
    with pytest.raises(AstreaError, match="nothing to train"):
        build_optimizer(Line(frozen=True), Schedule(steps=1, batch=1, lr=0.1))


def test_an_objective_need_not_say_more():
    class Silent(Line):
        after_step = Objective.after_step
        describe = Objective.describe

    silent = Silent(spoil=(1, 0))
    with pytest.raises(AstreaError, match="unnamed samples"):
        fit(silent, Schedule(steps=2, batch=8, lr=0.1))
