"""Hard routing: one expert per question, a gradient for the router, a loss that evens the load."""

from __future__ import annotations

import pytest
import torch

from astrea.fusion.peers.switch import UNREAD, TopOneSwitch, unevenness


def switch(layout, **options) -> TopOneSwitch:
    """With a router that prefers strongly, so that questions are routed differently."""
    torch.manual_seed(3)
    made = TopOneSwitch(layout, **options)
    with torch.no_grad():
        for parameter in made.router.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return made


def test_a_question_reads_one_expert_at_the_log_of_its_probability(layout, make_matrix, make_questions):
    made, seen, asked = switch(layout), make_matrix(6), make_questions(6)
    out = made(seen, asked)
    assert out.bias.shape == (6, 2, 8)
    logits = made.router(asked, seen.summary()[0], 0.0, None)
    best, which = logits.softmax(-1).max(-1)
    assert which.unique().numel() > 1
    assert torch.equal(out.shares.argmax(-1), which)
    assert out.shares.sum(-1).eq(1).all()
    assert out.shares.max(-1).values.eq(1).all()
    read = seen.expert == which.unsqueeze(-1)
    assert torch.allclose(out.bias, torch.where(read, best.log().unsqueeze(-1), UNREAD), atol=1e-5)
    assert torch.equal(out.valid, seen.valid)


def test_absent_experts_are_never_chosen(layout, make_matrix, make_questions):
    made, asked = switch(layout), make_questions(6)
    for absent in ((0,), (1,), (0, 2)):
        out = made(make_matrix(6, absent=absent), asked)
        assert out.shares[..., list(absent)].eq(0).all()
        assert out.shares.sum(-1).eq(1).all()
        assert out.bias.max() <= 0
    nobody = made(make_matrix(6, absent=(0, 1, 2)), asked, torch.Generator())
    assert nobody.shares.eq(0).all()
    assert nobody.bias.isfinite().all()
    assert nobody.auxiliary.isfinite()


def test_it_looks_at_question_and_picture(layout, make_matrix, make_questions):
    made = switch(layout)
    bias = lambda m, q: made(m, q).bias.max(-1).values  # noqa: E731
    before = bias(make_matrix(), make_questions())
    assert (bias(make_matrix(), make_questions(seed=1)) - before).abs().max() > 0.01
    assert (bias(make_matrix(seed=1), make_questions()) - before).abs().max() > 0.01


def test_a_question_is_routed_whatever_else_is_asked(layout, make_matrix, make_questions):
    made, seen, asked = switch(layout), make_matrix(), make_questions()
    assert torch.allclose(made(seen, asked[:, 1:]).bias[:, 0], made(seen, asked).bias[:, 1], atol=1e-6)


def test_the_router_starts_near_even(layout, make_matrix, make_questions):
    torch.manual_seed(0)
    made = TopOneSwitch(layout)
    probability = made.router(make_questions(20), make_matrix(20).summary()[0], 0.0, None).softmax(-1)
    assert probability.min() > 0.15
    assert probability.max() < 0.6


def test_the_router_learns_from_what_is_read(layout, make_matrix, make_questions):
    """Without the balancing loss: the probability of the chosen expert is in the bias."""
    made = switch(layout)
    out = made(make_matrix(), make_questions())
    assert out.auxiliary is None
    out.bias[out.bias > UNREAD / 2].sum().backward()
    for name, parameter in made.router.named_parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0, name


def test_the_balancing_loss_is_that_of_the_paper(layout, make_matrix, make_questions):
    made, seen, asked = switch(layout, jitter=0.0, balance=0.5), make_matrix(6), make_questions(6)
    asked[2, 1] = 0.0  # a row with one question less
    logits = made.router(asked, seen.summary()[0], 0.0, None)
    probability = [logits[b, s].softmax(-1) for b in range(6) for s in range(2) if (b, s) != (2, 1)]
    wanted = 0.0
    for e in range(3):
        routed = sum(float(p.argmax() == e) for p in probability) / 11
        wanted += 0.5 * 3 * routed * sum(p[e] for p in probability) / 11
    assert torch.allclose(made(seen, asked, torch.Generator()).auxiliary, wanted, atol=1e-6)


def test_balance_is_one_when_even_and_grows_when_one_takes_all():
    asked = torch.ones(3, 1, 4)
    one_each, all_one = torch.eye(3).unsqueeze(1), torch.eye(3)[:1].expand(3, -1).unsqueeze(1)
    assert float(unevenness(one_each, one_each, asked)) == pytest.approx(1)
    assert float(unevenness(all_one, all_one, asked)) == pytest.approx(3)


def test_descending_the_balancing_loss_evens_the_load(layout, make_matrix, make_questions):
    torch.manual_seed(0)
    made, seen, asked = TopOneSwitch(layout, balance=1.0), make_matrix(40), make_questions(40)
    with torch.no_grad():
        made.router.by_name.bias.copy_(torch.tensor([1.5, 0.0, 0.0]))
    assert made(seen, asked).shares[..., 0].mean() > 0.95
    optimizer = torch.optim.Adam(made.router.parameters(), lr=0.01)
    for step in range(150):
        optimizer.zero_grad()
        made(seen, asked, torch.Generator().manual_seed(step)).auxiliary.backward()
        optimizer.step()
    assert made(seen, asked).shares.mean((0, 1)).max() < 0.6


def test_jitter_needs_a_generator_and_follows_it(layout, make_matrix, make_questions):
    made, seen, asked = switch(layout, jitter=0.1), make_matrix(), make_questions()
    bias = lambda g: made(seen, asked, g).bias.max(-1).values  # noqa: E731
    still = bias(None)
    assert torch.equal(bias(None), still)
    shaken = bias(torch.Generator().manual_seed(1))
    assert torch.equal(bias(torch.Generator().manual_seed(1)), shaken)
    assert 1e-4 < (shaken - still).abs().max() < 0.5
    assert not torch.equal(bias(torch.Generator().manual_seed(2)), shaken)


def test_alone_closes_the_way_through_other_visual_tokens(layout, make_matrix, make_questions):
    made, seen = switch(layout, alone=True), make_matrix(6)
    out = made(seen, make_questions(6, 1))
    assert made.per_question
    assert not switch(layout).per_question
    chosen = out.shares[:, 0].argmax(-1, keepdim=True)
    assert torch.equal(out.valid, seen.valid & (seen.expert == chosen))
