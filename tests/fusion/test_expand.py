"""A fusion that grows by one expert: the others are judged, shared and read as before."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrea import AstreaError
from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.astrea import ADDED_MATCH, AstreaFusion, relative_shares
from astrea.fusion.expand import EXPERT_AXES, expand_fusion, expanded_tensor
from astrea.fusion.peers.sequence_concat import SequenceConcat
from astrea.fusion.protocol import Layout

OLD = Layout(width=8, names=("a", "b", "c"), counts=(3, 3, 2), heads=4)
NEW = Layout(width=8, names=("a", "b", "c", "new"), counts=(3, 3, 2, 2), heads=4)


@torch.no_grad()
def trained(layout: Layout = OLD, **options) -> AstreaFusion:
    """A fusion in which every number is its own."""
    torch.manual_seed(1)
    made = AstreaFusion(layout, **{"residual": True} | options)
    for tensor in made.state_dict().values():
        tensor.add_(torch.rand_like(tensor) * 0.1)
    return made.eval()


@pytest.fixture
def pair() -> tuple[AstreaFusion, AstreaFusion]:
    """A trained fusion, and one that has grown from it."""
    old, new = trained(), AstreaFusion(NEW, residual=True, joined=["new"]).eval()
    expand_fusion(old, new)
    return old, new


@pytest.fixture
def pictures(make_matrix) -> tuple[ExpertMatrix, ExpertMatrix]:
    """The same pictures seen by the old experts, and by the newcomer too, who says something loud."""
    seen = make_matrix()
    generator = torch.Generator().manual_seed(5)
    said = torch.randn(3, 2, 8, generator=generator) * 3
    more = replace(
        seen,
        tokens=torch.cat([seen.tokens, said], 1),
        confidence=torch.cat([seen.confidence, torch.full((3, 2), 0.9)], 1),
        valid=torch.cat([seen.valid, torch.ones(3, 2, dtype=torch.bool)], 1),
        present=torch.cat([seen.present, torch.ones(3, 1, dtype=torch.bool)], 1),
        expert=torch.cat([seen.expert, torch.tensor([3, 3])]),
        places=torch.cat([seen.places, torch.full((3, 2, 2), float("nan"))], 1),
    )
    return seen, more


def test_every_tensor_that_counts_experts_is_known():
    known = set()
    for targets in ("templates", "items"):
        small, large = (AstreaFusion(each, residual=True, targets=targets).state_dict() for each in (OLD, NEW))
        grown = {name for name in small if small[name].shape != large[name].shape}
        for name in grown:
            assert expanded_tensor(small[name], EXPERT_AXES[name], 0.0).shape == large[name].shape
        known |= grown
    assert known == set(EXPERT_AXES)


@torch.no_grad()
def test_a_gate_of_items_weighs_the_others_as_before(pictures):
    old, new = trained(targets="items"), AstreaFusion(NEW, residual=True, targets="items", joined=["new"]).eval()
    expand_fusion(old, new)
    asked = torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(6))
    before, after = (made.allocator(asked, seen) for made, seen in zip((old, new), pictures, strict=True))
    torch.testing.assert_close(after[..., :-1], before)


def test_old_entries_keep_their_place_in_every_run():
    echo = torch.randn(3, 27, 4)
    grown = expanded_tensor(echo, EXPERT_AXES["trust.from_echo"], 0.0)
    for run in range(9):
        assert torch.equal(grown[:3, 4 * run : 4 * run + 3], echo[:, 3 * run : 3 * run + 3])
        assert not grown[:, 4 * run + 3].any()
    assert not grown[3].any()


def test_old_parameters_are_bit_equal(pair):
    old, new = pair
    state = new.state_dict()
    for name, tensor in old.state_dict().items():
        if name not in EXPERT_AXES:
            assert torch.equal(state[name], tensor), name
    for name in ("allocator.load_bias", "allocator.load", "residual.alpha"):
        assert torch.equal(state[name][:3], old.state_dict()[name])


def test_nobody_is_trusted_less_or_more_because_of_the_newcomer(pair, pictures):
    old, new = pair
    seen, more = pictures
    torch.testing.assert_close(new.trust(more)[:, :3], old.trust(seen))


def test_the_newcomer_is_believed_and_does_not_replace_the_most_trusted(pair, pictures, make_questions):
    with torch.no_grad():
        for fusion in pair:
            fusion.trust.score.bias.fill_(-9.0)  # nobody is honest, so the most trusted one alone is believed
    before, after = (fusion(matrix, make_questions()) for fusion, matrix in zip(pair, pictures, strict=True))
    assert (before.shares[:, 0] > 0).sum(1).tolist() == [1, 1, 1]
    assert torch.equal(after.shares[..., :3] > 0, before.shares > 0)
    assert (after.shares[..., 3] > 0).all()


def test_the_others_share_as_before(pair, pictures, make_questions):
    before, after = (fusion(matrix, make_questions()) for fusion, matrix in zip(pair, pictures, strict=True))
    old_part = after.shares[..., :3]
    was = before.shares / before.shares.sum(-1, keepdim=True)
    torch.testing.assert_close(old_part / old_part.sum(-1, keepdim=True), was)
    assert (after.shares[..., 3] > 0).all()


def test_attention_to_the_others_is_neither_raised_nor_lowered(pair, pictures, make_questions):
    before, after = (fusion(matrix, make_questions()) for fusion, matrix in zip(pair, pictures, strict=True))
    torch.testing.assert_close(after.bias[..., :8], before.bias, atol=1e-4, rtol=1e-4)


def test_a_quiet_newcomer_is_hardly_attended_to(pair, pictures, make_questions):
    _, new = pair
    new.allocator.load_bias[-1] -= 8.0
    out = new(pictures[1], make_questions())
    assert (out.bias[..., 8:] < -3).all()


def test_its_word_match_is_weak(pair, pictures, make_questions):
    lengths = pair[1](pictures[1], make_questions()).words.norm(dim=-1)
    torch.testing.assert_close(lengths[:, 8:], torch.full((3, 2), ADDED_MATCH))
    torch.testing.assert_close(lengths[1, :8], torch.ones(8))


def test_the_others_do_not_read_it(pair, pictures, make_questions):
    """Neither in the mixer nor, since it says so, in the language model; it reads them."""
    old, new = pair
    seen, more = pictures
    before, after = old(seen, make_questions()), new(more, make_questions())
    torch.testing.assert_close(after.tokens[:, :8], before.tokens)
    assert after.cross_only.tolist() == [False] * 8 + [True] * 2
    assert before.cross_only is None
    alone = new(more.with_presence(torch.tensor([False, False, False, True]).expand(3, -1)), make_questions())
    assert not torch.allclose(alone.tokens[:, 8:], after.tokens[:, 8:])


def test_without_the_newcomer_all_is_as_it_was(pair, pictures, make_questions):
    old, new = pair
    seen, more = pictures
    away = more.with_presence(torch.tensor([True, True, True, False]).expand(3, -1))
    before, after = old(seen, make_questions()), new(away, make_questions())
    torch.testing.assert_close(after.shares[..., :3], before.shares)
    torch.testing.assert_close(after.tokens[:, :8], before.tokens)
    torch.testing.assert_close(after.bias[..., :8], before.bias)
    assert not after.valid[:, 8:].any()


def test_a_newcomer_that_is_alone_can_be_read(pair, pictures, make_questions):
    alone = pictures[1].with_presence(torch.tensor([False, False, False, True]).expand(3, -1))
    out = pair[1](alone, make_questions())
    assert (out.shares[..., 3] > 0).all()
    sure = alone.confidence[:, None, 8:].expand(-1, 2, -1)
    torch.testing.assert_close(out.bias[..., 8:], sure.log())


def test_a_newcomers_tokens_count_as_far_as_they_are_sure(pair, pictures, make_questions):
    """Of the others' tokens none is judged so: they have learned what their confidence is worth."""
    more, sure = pictures[1], pictures[1].confidence.clone()
    sure[:, 8] *= 0.25
    before, after = pair[1](more, make_questions()), pair[1](replace(more, confidence=sure), make_questions())
    # The share may change as well, for the whole expert alike.
    moved = after.bias - before.bias
    torch.testing.assert_close(moved[..., 8] - moved[..., 9], torch.full((3, 2), 0.25).log())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4), st.lists(st.booleans(), min_size=3, max_size=3))
def test_relative_shares_do_not_depend_on_who_joined(weights, here):
    present = torch.tensor([[*here, True]])
    share = torch.tensor([[weights]]) * present
    share = share / (share.sum(-1, keepdim=True) + 0.3)
    trained_E = torch.tensor([True, True, True, False])
    relative = relative_shares(share, present, trained_E)
    if any(here):
        others = share[..., :3] / share[..., :3].sum(-1, keepdim=True)
        torch.testing.assert_close(relative[..., :3], others * sum(here))
    else:
        torch.testing.assert_close(relative[..., 3], torch.ones(1, 1))


def test_where_nobody_has_joined_their_mean_is_one():
    present = torch.tensor([[True] * 4, [True, False, True, True]])
    share = torch.rand(2, 3, 4) * present.unsqueeze(1)
    relative = relative_shares(share, present, torch.ones(4, dtype=torch.bool))
    torch.testing.assert_close(relative.sum(-1), torch.tensor([4.0, 3.0]).view(2, 1).expand(2, 3))
    torch.testing.assert_close(relative / relative[..., :1], share / share[..., :1])


def test_a_strategy_that_cannot_grow_says_so():
    with pytest.raises(AstreaError, match="SequenceConcat"):
        expand_fusion(SequenceConcat(OLD), SequenceConcat(NEW))


def test_a_fusion_without_shares_says_so():
    with pytest.raises(AstreaError, match="allocator"):
        expand_fusion(AstreaFusion(OLD, allocator=False), AstreaFusion(NEW, allocator=False))


@pytest.mark.parametrize("off", ["mixer", "residual", "trust"])
def test_parts_that_are_off_stay_off(off):
    old, new = trained(**{off: False}), AstreaFusion(NEW, **{"residual": True} | {off: False}, joined=["new"])
    expand_fusion(old, new)
    assert torch.equal(new.allocator.load_bias[:3], old.allocator.load_bias)
