"""Attention beside a null key, and shares from its mass."""

from __future__ import annotations

import math

import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.fusion.peers.attend import Attention, attend, expert_mass, feed_forward, shares_of

HEADS, WIDTH = 2, 6


def parts(batch: int = 2, queries: int = 3, keys: int = 4) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(batch, queries, WIDTH, generator=generator)
    k, v = (torch.randn(batch, keys, WIDTH, generator=generator) for _ in range(2))
    seen = torch.rand(batch, queries, keys, generator=generator) < 0.5
    seen[0, 0] = False
    return q, k, v, seen


def test_it_is_a_softmax_with_one_more_key_of_score_and_value_zero():
    q, k, v, seen = parts()
    out, weight = attend(q, k, v, seen, HEADS)
    size = WIDTH // HEADS
    for b in range(2):
        for i in range(3):
            for h in range(HEADS):
                of = slice(h * size, (h + 1) * size)
                found = seen[b, i].nonzero().flatten().tolist()
                power = [math.exp(float(q[b, i, of] @ k[b, j, of]) / math.sqrt(size)) for j in found]
                wanted = sum((p * v[b, j, of] for p, j in zip(power, found, strict=True)), torch.zeros(size))
                assert torch.allclose(out[b, i, of], wanted / (1 + sum(power)), atol=1e-5)
                assert weight[b, h, i].sum().item() == pytest.approx(sum(power) / (1 + sum(power)), abs=1e-5)
    assert out[0, 0].eq(0).all()


def test_what_may_not_be_seen_changes_nothing():
    torch.manual_seed(0)
    made = Attention(WIDTH, HEADS)
    x, read, _, _ = parts()
    valid = torch.tensor([[True, False, True, False], [False] * 4])
    before, weight = made(x, read, valid)
    read[~valid] = 50.0
    assert torch.equal(made(x, read, valid)[0], before)
    assert weight.transpose(1, 3)[~valid].eq(0).all()
    assert torch.allclose(before[1], made.out.bias.expand(3, -1), atol=1e-6)


def test_a_silent_part_starts_as_nothing_and_learns_at_once():
    x, read, _, _ = parts()
    made, feed = Attention(WIDTH, HEADS, silent=True), feed_forward(WIDTH, silent=True)
    out = made(x, read, torch.ones(2, 4, dtype=torch.bool))[0] + feed(x)
    assert out.eq(0).all()
    out.sum().backward()
    assert made.out.weight.grad.abs().sum() > 0
    assert feed[-1].weight.grad.abs().sum() > 0


def test_mass_goes_to_the_expert_of_each_key():
    weight = torch.tensor([[[[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]]]])
    assert torch.allclose(expert_mass(weight, torch.tensor([0, 2, 2]), 3), torch.tensor([[0.2, 0.0, 0.4]]))


def test_shares_are_mass_over_those_present_or_equal_ones():
    mass = torch.tensor([[1.0, 3.0, 4.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    present = torch.tensor([[True, True, False], [True, False, True], [False, False, False]])
    wanted = torch.tensor([[0.25, 0.75, 0.0], [0.5, 0.0, 0.5], [0.0, 0.0, 0.0]])
    assert torch.allclose(shares_of(mass, present), wanted)


def test_heads_must_divide_the_width():
    with pytest.raises(AstreaError, match="5 attention heads do not divide a width of 6"):
        Attention(WIDTH, 5)
