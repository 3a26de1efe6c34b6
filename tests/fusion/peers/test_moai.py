"""MoAI: the Perceiver over what auxiliary experts say, and the mixer of three attentions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.fusion.peers.moai import MoAI
from astrea.fusion.protocol import Layout
from fusion_peers import WIDTH, Peer

PEER = Peer(MoAI, Layout(width=WIDTH, names=("a", "classification", "c"), counts=(3, 2, 2), heads=2), {"heads": 2})
LAYOUT, OWNER = PEER.layout, PEER.owner
VISUAL = OWNER == 1
awake, matrix, questions, without = PEER.awake, PEER.matrix, PEER.questions, PEER.without


def test_visual_tokens_come_first_then_latents():
    out = awake()(matrix(), questions(count=2))
    assert out.tokens.shape == (3, 7, WIDTH)
    assert out.valid.all()
    assert out.shares.shape == (3, 2, 3)
    assert torch.allclose(out.shares.sum(-1), torch.ones(3, 2), atol=1e-6)
    few = awake(latents=2)
    assert few.num_tokens == 4
    assert few(matrix(), questions()).tokens.shape == (3, 4, WIDTH)


def test_the_mixer_starts_as_the_visual_experts_own_tokens():
    made, seen = MoAI(LAYOUT, heads=2), matrix()
    out = made(seen, questions())
    assert torch.allclose(out.tokens[:, :2], seen.tokens[:, VISUAL] + made.slots, atol=1e-6)
    # Gates of a third: two visual tokens keep two thirds of themselves, all the rest is auxiliary.
    assert torch.allclose(out.shares[..., 1], torch.full((3, 1), 2 * (2 / 3) / 7), atol=1e-5)


def test_every_parameter_learns_though_the_mixer_starts_at_zero():
    torch.manual_seed(0)
    made, seen, target = MoAI(LAYOUT, heads=2), matrix(), torch.randn(3, 7, WIDTH)
    optimizer = torch.optim.SGD(made.parameters(), 0.5)
    for _ in range(3):
        optimizer.zero_grad()
        (made(seen, questions()).tokens - target).square().mean().backward()
        optimizer.step()
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_latents_read_auxiliary_experts_only_and_no_question():
    made, seen = awake(), matrix()
    before = made(seen, questions()).tokens
    other = replace(seen, tokens=torch.where(VISUAL.unsqueeze(-1), seen.tokens.flip(0), seen.tokens))
    after = made(other, questions()).tokens
    assert torch.equal(before[:, 2:], after[:, 2:])
    assert (before[:, :2] - after[:, :2]).abs().max() > 1e-2
    for expert in (0, 2):
        mine = OWNER.eq(expert).unsqueeze(-1)
        changed = replace(seen, tokens=torch.where(mine, seen.tokens.flip(0), seen.tokens))
        assert (made(changed, questions()).tokens[:, 2:] - before[:, 2:]).abs().max() > 1e-2
    assert torch.equal(made(seen, questions().flip(0)).tokens[:, 2:], before[:, 2:])


@pytest.mark.parametrize("gate", range(3))
def test_each_gate_opens_its_own_reading(gate):
    """A gate wide open is that attention alone, added to the visual token."""
    made, seen = awake(), matrix()
    with torch.no_grad():
        made.gate.weight.zero_()
        made.gate.bias.copy_(torch.tensor([-99.0, -99.0, -99.0]).index_fill(0, torch.tensor(gate), 0.0))
    out = made(seen, questions())
    start = seen.tokens[:, VISUAL] + made.slots
    x, all_valid = made.norm(start), torch.ones(3, 5, dtype=torch.bool)
    wanted = [
        made.from_latents(x, made.norm_latents(out.tokens[:, 2:]), all_valid),
        made.from_question(x, made.norm_question(questions()), all_valid[:, :1]),
        made.from_self(x, x, all_valid[:, :2]),
    ][gate][0]
    assert torch.allclose(out.tokens[:, :2] - start, wanted, atol=1e-5)
    assert wanted.abs().max() > 1e-2


def test_without_the_auxiliary_gate_shares_are_those_of_tokens():
    made, seen = awake(), matrix()
    with torch.no_grad():
        made.gate.weight.zero_()
        made.gate.bias.copy_(torch.tensor([-99.0, 0.0, 0.0]))
    assert torch.allclose(made(seen, questions()).shares[..., 1], torch.full((3, 1), 2 / 7), atol=1e-5)


@pytest.mark.parametrize("expert", range(3))
def test_an_absent_experts_tokens_change_nothing(expert):
    made, seen = awake(), matrix().with_presence(without(expert))
    out = made(seen, questions())
    other = made(replace(seen, tokens=seen.tokens.masked_fill(OWNER.eq(expert).unsqueeze(-1), torch.nan)), questions())
    assert torch.equal(out.tokens, other.tokens)
    assert torch.equal(out.shares, other.shares)
    assert out.shares[..., expert].eq(0).all()
    assert torch.allclose(out.shares.sum(-1), torch.ones(3, 1), atol=1e-6)
    assert out.valid[:, :2].all().item() == (expert != 1)
    assert out.valid[:, 2:].all()


def test_alone_the_visual_expert_has_the_whole_share_and_latents_are_not_read():
    out = awake()(matrix().with_presence(without(0, 2)), questions())
    assert torch.allclose(out.shares, torch.tensor([0.0, 1.0, 0.0]).expand(3, 1, -1))
    assert out.valid[:, :2].all()
    assert not out.valid[:, 2:].any()


def test_no_expert_at_all_is_finite_and_unread():
    out = awake()(matrix().with_presence(without(0, 1, 2)), questions())
    assert out.tokens.isfinite().all()
    assert not out.valid.any()
    assert out.shares.eq(0).all()


def test_visual_tokens_depend_on_the_question():
    made, seen = awake(), matrix()
    assert MoAI.per_question
    one, two = (made(seen, asked).tokens[:, :2] for asked in (questions(), questions().flip(0)))
    assert (one - two).abs().max() > 1e-2
    assert made(seen, torch.zeros(3, 1, WIDTH)).tokens.isfinite().all()


def test_bad_options_are_named():
    for options in ({"visual": "nobody"}, {"latents": 0}, {"depth": 0}, {"heads": 3}):
        with pytest.raises(AstreaError):
            MoAI(LAYOUT, **options)
    with pytest.raises(AstreaError, match="auxiliary expert"):
        MoAI(Layout(WIDTH, ("classification",), (4,), 2))
    assert MoAI(LAYOUT, visual="c").own == slice(5, 7)
    assert MoAI(Layout(WIDTH, ("x", "y"), (1, 2), 2)).own == slice(0, 1)
