"""The gate that predicts what experts contribute to one item: what its weights say, and what it can learn to see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.astrea import AstreaFusion
from astrea.fusion.contribution import Contributions
from astrea.fusion.item_calibration import ItemCalibration
from astrea.fusion.item_gate import ItemGate, predicted_contributions, squashed
from drawn_matrix import LAYOUT, OWNER, matrix

WIDTH, EXPERTS, BATCH = 8, 3, 32


def gate(**options) -> ItemGate:
    torch.manual_seed(0)
    return ItemGate(WIDTH, EXPERTS, inner=16, heads=2, hidden=32, **options)


def questions(batch: int = 4, seed: int = 3) -> Tensor:
    return torch.randn(batch, 2, WIDTH, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_weights_are_those_of_its_predicted_contributions_and_tell_them(seed: int):
    made, seen, asked = gate(), matrix(seed=seed), questions(seed=seed)
    bias = torch.randn(EXPERTS, generator=torch.Generator().manual_seed(seed)) * 0.3
    made.load_bias.copy_(bias)
    nats = made(asked, seen).exp()
    weights = made.weigh(asked, seen)
    known = Contributions(4 * 2, EXPERTS)
    known.table.copy_(nats.detach().reshape(-1, EXPERTS))
    torch.testing.assert_close(weights.reshape(-1, EXPERTS), known.targets(bias)[:, :-1])
    torch.testing.assert_close(predicted_contributions(weights, bias), nats, rtol=1e-3, atol=1e-5)


def test_a_weight_is_divided_by_the_null_experts_alone():
    """Of contributions that stay the same, odds against the null expert stay when another expert goes."""
    made = gate()
    with torch.no_grad():
        made.score.zero_()
        made.bias_question.bias.copy_(torch.tensor([1.0, 0.5, -1.0]))
    seen, two = matrix(), torch.tensor([[True, False, True]]).expand(4, -1)
    odds = [
        w / (1 - w.sum(-1, keepdim=True)) for w in (made.weigh(questions(), m) for m in (seen, seen.with_presence(two)))
    ]
    torch.testing.assert_close(odds[0][..., [0, 2]], odds[1][..., [0, 2]])
    assert odds[1][..., 1].eq(0).all()
    assert odds[0][..., 1].gt(0).all()


def test_huge_predictions_are_numbers():
    made = gate()
    with torch.no_grad():
        made.bias_question.bias.copy_(torch.tensor([200.0, -200.0, 0.0]))
    weights = made.weigh(questions(), matrix())
    assert weights.isfinite().all()
    assert weights[..., 0].min() > 0.99


def test_an_absent_expert_changes_nothing_and_an_added_one_only_itself():
    made, seen = gate(), matrix()
    gone = torch.tensor([[True, False, True]]).expand(4, -1)
    loud = torch.where((OWNER == 1)[:, None], torch.full_like(seen.tokens, float("nan")), seen.tokens)
    before = made.weigh(questions(), seen.with_presence(gone))
    assert torch.equal(made.weigh(questions(), replace(seen, tokens=loud).with_presence(gone)), before)
    joined = gate(joined=[False, True, False])
    loud = torch.where((OWNER == 1)[:, None], -5 * seen.tokens, seen.tokens)
    one, two = (joined(questions(), m) for m in (seen, replace(seen, tokens=loud)))
    assert torch.equal(one[..., [0, 2]], two[..., [0, 2]])
    assert not torch.equal(one[..., 1], two[..., 1])
    assert not torch.equal(*(gate()(questions(), m)[..., 0] for m in (seen, replace(seen, tokens=loud))))


def test_squashing_is_half_at_one_nat_and_nothing_below_zero():
    assert squashed(torch.tensor([-3.0, 0.0, 1.0, 3.0])).tolist() == [0.0, 0.0, 0.5, 0.75]


# What can be learned -------------------------------------------------------------------------------------------------

Truth = Callable[[ExpertMatrix, Tensor], Tensor]
THING = torch.eye(WIDTH)[0]


def by_picture(seen: ExpertMatrix, asked: Tensor) -> Tensor:
    """An expert is worth 2 nats where one of its tokens says the thing, whatever is asked."""
    says = (seen.tokens @ THING > 2) & seen.valid
    mine = torch.stack([(says & (e == OWNER)).any(1) for e in range(EXPERTS)], -1)
    return 2.0 * mine.unsqueeze(1).expand(-1, asked.shape[1], -1)


def by_question(seen: ExpertMatrix, asked: Tensor) -> Tensor:
    """An expert is worth 2 nats for the questions that name it, whatever the picture."""
    return 2.0 * (asked[..., :EXPERTS] > 0.4)


def items(seed: int) -> tuple[ExpertMatrix, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    seen = matrix(BATCH, seed=seed)
    thing = torch.rand(BATCH, 8, 1, generator=generator) < 0.2
    return replace(seen, tokens=torch.where(thing, 4 * THING, 0.5 * seen.tokens)), questions(BATCH, seed)


def explained(truth: Truth, steps: int, **parts) -> float:
    """R2 on new items of what a gate has learned by its own loss through a training step."""
    made = gate(**parts)
    optimizer, learner = torch.optim.Adam(made.parameters(), lr=1e-2), ItemCalibration(0, EXPERTS)
    for number in range(steps):
        seen, asked = items(number)
        delta = truth(seen, asked)
        step = fake_step(delta)
        learner.measure(step)
        loss = learner.loss(step, made.weigh(asked, seen), made.load_bias)["contribution"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        learner.after_step(made, 0.02)
    seen, asked = items(10**6)
    wanted = squashed(truth(seen, asked))
    found = squashed(predicted_contributions(made.weigh(asked, seen).detach(), made.load_bias))
    return float(1 - (found - wanted).square().sum() / (wanted - wanted.mean((0, 1))).square().sum())


def fake_step(delta: Tensor, *, complete: Tensor | None = None, number: int = 0, rows: slice | None = None):
    """A training step in which this was measured."""
    count = len(delta)
    return SimpleNamespace(
        number=number,
        weights={"contribution": 0.2},
        settings=SimpleNamespace(contribution_every=1),
        groups=torch.zeros(count, delta.shape[1], dtype=torch.long),
        complete=torch.ones(count, dtype=torch.bool) if complete is None else complete,
        local_rows=slice(0, count) if rows is None else rows,
        leave_one_out=lambda most: delta,
        gather=lambda local, whole: local,
    )


def test_it_learns_what_the_picture_alone_says():
    assert explained(by_picture, 150) > 0.5


def test_it_learns_what_the_question_alone_says():
    assert explained(by_question, 150) > 0.5


def test_without_the_picture_it_could_not(monkeypatch: pytest.MonkeyPatch):
    """A mutant: the same gate, given one and the same picture for all."""
    real = ItemGate.forward
    blind = lambda made, asked, seen: real(made, asked, replace(seen, tokens=0 * seen.tokens))  # noqa: E731
    monkeypatch.setattr(ItemGate, "forward", blind)
    assert explained(by_picture, 40) < 0.1


# The loss ------------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_cross_entropy_of_complete_rows_that_were_measured():
    learner = ItemCalibration(0, 2)
    delta = torch.tensor([[[1.0, 0.0]], [[3.0, -2.0]], [[0.5, 0.5]]])
    step = fake_step(delta, complete=torch.tensor([True, False, True]))
    learner.measure(step)
    learner.delta = learner.delta[:2]  # only two rows were answered again
    weights = torch.tensor([[[0.4, 0.2]], [[0.1, 0.1]], [[0.3, 0.3]]])
    bias = torch.tensor([0.2, -0.2])
    found = learner.loss(step, weights, bias)["contribution"]
    nats = ((weights[0, 0] / 0.4) * torch.exp(-bias)).square() - 0.005
    p, y = nats / (1 + nats), torch.tensor([0.5, 0.0])
    wanted = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    torch.testing.assert_close(found, wanted)
    assert learner.loss(step, weights, bias) == {}  # nothing more was measured
    assert [len(taken) for taken in learner.taken] == [2, 2]


def test_parts_of_a_shared_batch_add_up():
    delta = torch.rand(5, 2, EXPERTS)
    weights = torch.rand(5, 2, EXPERTS) * 0.3
    losses = []
    for rows in (slice(0, 5), slice(0, 2), slice(2, 5)):
        learner, step = ItemCalibration(0, EXPERTS), fake_step(delta, rows=rows)
        step.gather = lambda local, whole: weights
        learner.measure(step)
        losses.append(learner.loss(step, weights[rows], torch.zeros(EXPERTS))["contribution"])
    torch.testing.assert_close(losses[0], losses[1] + losses[2])


def test_no_complete_row_is_no_loss_but_a_number():
    learner = ItemCalibration(0, EXPERTS)
    step = fake_step(torch.rand(2, 1, EXPERTS), complete=torch.zeros(2, dtype=torch.bool))
    learner.measure(step)
    assert learner.loss(step, torch.rand(2, 1, EXPERTS) * 0.3, torch.zeros(EXPERTS))["contribution"] == 0


def test_the_fusion_reads_by_the_weights_of_the_item_gate_and_answers_do_not_teach_it():
    torch.manual_seed(0)
    made = AstreaFusion(LAYOUT, targets="items", trust=False)
    seen, asked = matrix(), questions().requires_grad_()
    seen = replace(seen, tokens=seen.tokens.requires_grad_())
    out = made(seen, asked)
    torch.testing.assert_close(out.shares, made.allocator.weigh(asked, seen))
    assert not out.bias.requires_grad
    out.shares.square().sum().backward()
    assert asked.grad is None
    assert seen.tokens.grad is None
    assert all(parameter.grad.abs().max() > 0 for parameter in made.allocator.parameters())
    assert isinstance(made.calibration, ItemCalibration)
    assert sum(p.numel() for p in ItemGate(128, 4).parameters()) < 40_000
