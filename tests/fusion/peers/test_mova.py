"""MoVA: the coarse choice by the question, the fine gates, and the base that experts are poured into."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.fusion.peers.mova import MoVA
from astrea.fusion.protocol import Layout
from fusion_peers import WIDTH, Peer

PEER = Peer(
    MoVA,
    Layout(width=WIDTH, names=("captioning", "b", "c", "d"), counts=(3, 1, 2, 2), heads=2),
    {"blocks": 2, "top": 2, "heads": 2},
    batch=6,
)
LAYOUT, OWNER = PEER.layout, PEER.owner
awake, matrix, questions, without = PEER.awake, PEER.matrix, PEER.questions, PEER.without


def test_it_gives_a_token_per_slot_and_shares_that_sum_to_one():
    out = awake()(matrix(), questions(count=3))
    assert out.tokens.shape == (6, 8, WIDTH)
    assert out.valid.all()
    assert out.shares.shape == (6, 3, 4)
    assert torch.allclose(out.shares.sum(-1), torch.ones(6, 3), atol=1e-6)
    assert torch.equal(out.shares[:, 0], out.shares[:, 2])


def test_it_starts_as_the_bases_tokens_among_learned_ones():
    made, seen = MoVA(LAYOUT), matrix()
    out = made(seen, questions()).tokens
    wanted = seen.tokens.masked_fill(~(seen.valid & (OWNER == 0)).unsqueeze(-1), 0) + made.slots
    assert torch.allclose(out, wanted, atol=1e-6)


def test_every_parameter_learns_though_much_starts_at_zero():
    """Two steps free what stands behind zeros; the questions differ, so that every expert is kept by some."""
    torch.manual_seed(0)
    made, seen = MoVA(LAYOUT, blocks=2, top=3), matrix(32)
    optimizer = torch.optim.SGD(made.parameters(), 0.5)
    target = torch.randn(32, 8, WIDTH)
    for step in range(4):
        optimizer.zero_grad()
        out = made(seen, questions(32), torch.Generator().manual_seed(step))
        (out.tokens - target).square().mean().backward()
        optimizer.step()
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_only_the_top_experts_for_the_question_are_read():
    made, seen = awake(), matrix()
    out = made(seen, questions())
    kept = out.shares[:, 0] > 0
    assert kept.sum(1).eq(2).all()
    best = made.router(made.norm_question(questions()[:, 0])).topk(2, -1).indices
    assert kept.gather(1, best).all()
    assert len(kept.unique(dim=0)) > 1, "the choice must depend on the question"
    noisy = replace(seen, tokens=torch.where(kept[:, OWNER, None] | (OWNER == 0).unsqueeze(-1), seen.tokens, 9.0))
    assert torch.allclose(made(noisy, questions()).tokens, out.tokens, atol=1e-5)
    # Of the experts that are left, the best two move up.
    rest = made(seen.with_presence(without(0)), questions()).shares[:, 0]
    assert (rest > 0).sum(1).eq(2).all()
    assert rest[:, 0].eq(0).all()


def test_the_weights_are_the_product_of_both_softmaxes():
    made, seen = awake(blocks=1, top=3), matrix()
    asked = made.norm_question(questions()[:, 0])
    routed, block = made.router(asked), made.blocks[0]
    start = made.slots + seen.tokens.masked_fill(~(seen.valid & (OWNER == 0)).unsqueeze(-1), 0)
    gate = block.gate(torch.cat([asked, block.norm(start).mean(1)], -1))
    kept = torch.zeros(6, 4).scatter(1, routed.topk(3, -1).indices, 1)
    coarse, fine = (kept * part.exp() / (kept * part.exp()).sum(-1, keepdim=True) for part in (routed, gate))
    wanted = coarse * fine / (coarse * fine).sum(-1, keepdim=True)
    assert torch.allclose(made(seen, questions()).shares[:, 0], wanted, atol=1e-5)


def test_in_training_the_choice_is_drawn_and_nobody_is_shut_out():
    made, seen = awake(top=1), matrix()
    drawn = torch.stack(
        [made(seen, questions(), torch.Generator().manual_seed(seed)).shares[:, 0] > 0 for seed in range(200)]
    )
    assert drawn.sum(-1).eq(1).all()
    # Drawing one by Gumbel noise is drawing from the softmax; five standard errors of 200 draws.
    wanted = made.router(made.norm_question(questions()[:, 0])).softmax(-1)
    assert ((drawn.float().mean(0) - wanted).abs() <= 5 * (wanted * (1 - wanted) / 200).sqrt() + 0.01).all()
    assert torch.equal(made(seen, questions()).tokens, made(seen, questions()).tokens)


@pytest.mark.parametrize("expert", range(4))
def test_an_absent_experts_tokens_change_nothing(expert):
    made, seen = awake(), matrix().with_presence(without(expert))
    out = made(seen, questions())
    other = made(replace(seen, tokens=seen.tokens.masked_fill(OWNER.eq(expert).unsqueeze(-1), torch.nan)), questions())
    assert torch.equal(out.tokens, other.tokens)
    assert torch.equal(out.shares, other.shares)
    assert out.shares[..., expert].eq(0).all()
    assert torch.allclose(out.shares.sum(-1), torch.ones(6, 1), atol=1e-6)


def test_no_expert_at_all_is_finite_and_unread():
    out = awake()(matrix().with_presence(without(0, 1, 2, 3)), questions())
    assert out.tokens.isfinite().all()
    assert not out.valid.any()
    assert out.shares.eq(0).all()


def test_tokens_depend_on_the_question():
    made, seen = awake(), matrix()
    assert MoVA.per_question
    assert (made(seen, questions()).tokens - made(seen, questions().flip(0)).tokens).abs().max() > 1e-2
    assert made(seen, torch.zeros(6, 1, WIDTH)).tokens.isfinite().all()


def test_the_base_is_the_captioner_or_what_one_names():
    assert MoVA(LAYOUT).base == 0
    assert MoVA(LAYOUT, base="c").base == 2
    assert MoVA(Layout(WIDTH, ("x", "captioning"), (1, 2), 2)).base == 1
    assert MoVA(Layout(WIDTH, ("x", "y"), (1, 2), 2)).base == 0


@pytest.mark.parametrize("options", [{"base": "nobody"}, {"top": 0}, {"blocks": 0}, {"heads": 3}])
def test_bad_options_are_named(options):
    with pytest.raises(AstreaError):
        MoVA(LAYOUT, **options)
