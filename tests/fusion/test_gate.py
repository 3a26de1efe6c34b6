"""Shares of experts: what they sum to, what they depend on, and how the load bias evens them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrea.fusion.gate import BAND, LEAK, Allocator

WIDTH, EXPERTS = 8, 4


def allocator(**options) -> Allocator:
    """With weights large enough that everything it may look at shows."""
    torch.manual_seed(0)
    made = Allocator(WIDTH, EXPERTS, hidden=16, **options)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return made


def inputs(batch: int = 3, questions: int = 2, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, questions, WIDTH, generator=generator),
        torch.randn(batch, EXPERTS, WIDTH, generator=generator),
        torch.rand(batch, EXPERTS, generator=generator),
        torch.ones(batch, EXPERTS, dtype=torch.bool),
    ]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.booleans(), st.floats(0.1, 10))
def test_those_present_share_out_what_does_not_go_to_nobody(seed, question, confidence, tau):
    made = allocator(use_question=question, use_confidence=confidence, tau=tau)
    asked, expert, sure, present = inputs(5, 3, seed)
    present = torch.rand(5, EXPERTS, generator=torch.Generator().manual_seed(seed)) < 0.6
    shares = made(asked, expert, sure, present)
    assert shares.shape == (5, 3, EXPERTS)
    assert shares.masked_select(~present.unsqueeze(1)).eq(0).all()
    # In the softmax, nobody stands beside those present.
    nobody = 1 - shares.sum(-1)
    assert nobody.gt(-1e-6).all()
    assert nobody[~present.any(1)].eq(1).all()
    assert shares.masked_select(present.unsqueeze(1)).gt(0).all()


def test_nobody_starts_like_an_expert_that_nothing_speaks_for_and_follows_the_question():
    made = allocator()
    asked, expert, sure, present = inputs()
    with torch.no_grad():
        for part in (made.score, made.bias_question, made.nobody):
            part.weight.zero_()
        made.nobody.bias.zero_()
        made.load_bias.zero_()
        assert torch.allclose(made(asked, expert, sure, present), torch.tensor(1 / (EXPERTS + 1)))
        made.nobody.weight.normal_()
    left = 1 - made(asked, expert, sure, present).sum(-1)
    assert left.std() > 0.05
    blind = allocator(use_question=False)
    left = 1 - blind(asked, expert, sure, present).sum(-1)
    assert torch.allclose(left, left[:, :1])


def test_what_remains_keeps_its_proportions():
    made = allocator()
    asked, expert, sure, present = inputs()
    whole = made(asked, expert, sure, present)
    present[:, 1] = False
    rest = made(asked, expert, sure, present)
    assert torch.allclose(rest[..., 0] / rest[..., 3], whole[..., 0] / whole[..., 3], rtol=1e-4)


def test_an_absent_expert_changes_nothing():
    made = allocator()
    asked, expert, sure, present = inputs()
    present[:, 2] = False
    before = made(asked, expert, sure, present)
    expert[:, 2], sure[:, 2] = 50.0, 0.5
    assert torch.equal(made(asked, expert, sure, present), before)


@pytest.mark.parametrize("index", [0, 1, 2], ids=["question", "tokens", "confidence"])
def test_it_looks_at_question_tokens_and_confidence(index):
    made = allocator(use_confidence=True)
    one, two = inputs(), inputs(seed=1)
    changed = [*one]
    changed[index] = two[index]
    assert (made(*changed) - made(*one)).abs().max() > 0.01


@pytest.mark.parametrize(("option", "index"), [("use_question", 0), ("use_confidence", 2)])
def test_what_is_switched_off_is_ignored(option, index):
    made = allocator(**({"use_confidence": True} | {option: False}))
    one, two = inputs(), inputs(seed=1)
    changed = [*one]
    changed[index] = two[index]
    assert torch.equal(made(*changed), made(*one))


def test_a_large_question_counts_no_more_than_a_small_one():
    made = allocator()
    asked, *rest = inputs()
    assert torch.allclose(made(asked * 100, *rest), made(asked, *rest), atol=1e-3)


def test_a_higher_temperature_evens_the_shares():
    sharp, flat = (
        torch.cat([shares, 1 - shares.sum(-1, keepdim=True)], -1)
        for shares in (allocator(tau=tau)(*inputs()) for tau in (0.3, 30.0))
    )
    assert flat.std(-1).max() < sharp.std(-1).min()


def test_it_starts_near_equal_shares():
    torch.manual_seed(0)
    shares = Allocator(WIDTH, EXPERTS)(*inputs())
    assert (shares - 1 / EXPERTS).abs().max() < 0.1


def skewed() -> Allocator:
    made = Allocator(WIDTH, EXPERTS)
    with torch.no_grad():
        made.score.weight.zero_()
        made.bias_question.weight.copy_(torch.tensor([[2.0], [0.0], [-1.0], [-2.0]]).expand(-1, WIDTH) / WIDTH)
        made.norm_q.weight.zero_()
        made.norm_q.bias.fill_(1.0)
    return made


def test_the_load_bias_evens_a_skewed_load():
    made, arguments = skewed(), inputs(6, 2)
    spread = []
    for _ in range(400):
        with torch.no_grad():
            shares = made(*arguments)
        made.update_load(shares.flatten(0, 1), rate=0.02)
        mean = shares.mean((0, 1))
        spread.append(float(mean.max() - mean.min()))
    assert spread[0] > 0.7
    assert max(spread[-50:]) < 0.1
    assert made.load_bias.argsort().tolist() == [0, 1, 2, 3]
    assert made.load_bias.mean().abs() < 1e-5
    assert torch.allclose(made.load / made.load.sum(), torch.full((4,), 0.25), atol=0.06)


def test_within_the_band_the_bias_fades_and_nothing_else_moves():
    made = skewed()
    made.load_bias.copy_(torch.tensor([0.4, -0.2, -0.1, -0.1]))
    before = made.load_bias.clone()
    made.update_load(torch.full((6, 4), 0.25), rate=0.02)
    assert torch.allclose(made.load_bias, before * (1 - LEAK))
    edge = torch.tensor([0.25 * (1 - 0.9 * BAND), 0.25 * (1 + 0.9 * BAND), 0.25, 0.25])
    made.load.copy_(edge)
    made.load_bias.zero_()
    made.update_load(edge.unsqueeze(0), rate=0.02)
    assert made.load_bias.eq(0).all()


def test_no_rate_no_bias():
    made = skewed()
    shares = torch.tensor([[0.7, 0.1, 0.1, 0.1]])
    made.update_load(shares, rate=0.0, decay=0.9)
    assert made.load_bias.eq(0).all()
    assert torch.allclose(made.load, 0.9 * torch.full((4,), 0.25) + 0.1 * shares[0])


def test_a_step_without_whole_rows_leaves_the_load_alone():
    made = skewed()
    made.update_load(torch.zeros(0, 4), rate=0.1)
    assert made.load_bias.eq(0).all()
    assert made.load.eq(0.25).all()


def test_the_load_bias_leaves_the_contrast_between_questions():
    """It shifts an expert's logit alike for every question: log odds between questions stay."""
    made, arguments = allocator(), inputs()
    before = made(*arguments).log()
    made.load_bias.copy_(torch.tensor([0.5, -0.5, 0.3, -0.3]))
    after = made(*arguments).log()
    odds = lambda x: (x[..., 0] - x[..., 1])[:, 0] - (x[..., 0] - x[..., 1])[:, 1]  # noqa: E731
    assert torch.allclose(odds(before), odds(after), atol=1e-4)
    assert not torch.allclose(before, after, atol=1e-2)
