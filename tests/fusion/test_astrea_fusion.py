"""Astrea's fusion: equal shares are the plain concat, an absent expert is as if it had never been."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from astrea.alignment.matrix import ExpertMatrix
from astrea.common.seeds import generator_for
from astrea.fusion.astrea import AstreaFusion
from astrea.fusion.protocol import Layout

WIDTH, EXPERTS, TOKENS = 8, 3, 6
OWNER = torch.tensor([0, 0, 1, 1, 2, 2])


LAYOUT = Layout(width=WIDTH, names=("a", "b", "c"), counts=(2, 2, 2), heads=4)


def fusion(layout: Layout = LAYOUT, **options) -> AstreaFusion:
    torch.manual_seed(0)
    # Trust has tests of its own; here every expert is believed. The residual is not in the default.
    made = AstreaFusion(layout, heads=2, **{"trust": False, "residual": True} | options)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        made.residual_keep.fill_(0.8)
    return made


def matrix(batch: int = 3, seed: int = 0) -> ExpertMatrix:
    generator = torch.Generator().manual_seed(seed)
    sure = torch.rand(batch, TOKENS, generator=generator) * 0.9 + 0.1
    sure[0, 1] = 0.0
    present = torch.ones(batch, EXPERTS, dtype=torch.bool)
    tokens = torch.randn(batch, TOKENS, WIDTH, generator=generator)
    places = torch.rand(batch, TOKENS, 2, generator=generator)
    places[:, OWNER == 0] = float("nan")
    return ExpertMatrix(tokens, sure, sure > 0, present, OWNER, places)


def questions(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 2, WIDTH, generator=torch.Generator().manual_seed(9))


def without(expert: int, batch: int = 3) -> torch.Tensor:
    present = torch.ones(batch, EXPERTS, dtype=torch.bool)
    present[:, expert] = False
    return present


def test_equal_shares_are_the_aligned_concat():
    """No mixer, an allocator without preference: the tokens as they are and no bias."""
    made = AstreaFusion(LAYOUT, mixer=False)
    with torch.no_grad():
        made.allocator.score.weight.zero_()
    seen = matrix()
    out = made(seen, questions())
    assert torch.equal(out.tokens, seen.tokens)
    assert out.bias.abs().max() < 1e-6
    assert torch.allclose(out.shares, torch.full((3, 2, 3), 1 / 4))  # nobody in particular has the last quarter
    concat = AstreaFusion(LAYOUT, mixer=False, allocator=False)(seen, questions())
    assert concat.bias is None
    assert torch.equal(concat.tokens, out.tokens)
    assert torch.equal(concat.valid, out.valid)
    assert made.num_tokens == TOKENS


def test_shares_are_a_meter_answers_do_not_teach_them_and_they_teach_nothing_else():
    made, seen, asked = fusion(), matrix(), questions().requires_grad_()
    seen = replace(seen, tokens=seen.tokens.requires_grad_())
    out = made(seen, asked)
    assert not out.bias.requires_grad
    out.shares.square().sum().backward()
    assert asked.grad is None
    assert seen.tokens.grad is None
    assert all(parameter.grad.abs().max() > 0 for parameter in made.allocator.parameters())


def test_the_bias_is_the_log_share_against_an_equal_one():
    out = fusion()(matrix(), questions())
    mean = out.shares.mean(-1, keepdim=True)
    assert torch.allclose(out.bias, torch.log(out.shares / mean)[..., OWNER], atol=1e-6)
    two = fusion()(matrix().with_presence(without(1)), questions())
    mean = two.shares[..., [0, 2]].mean(-1, keepdim=True)
    assert torch.allclose(two.bias[..., [0, 1, 4, 5]], torch.log(two.shares / mean)[..., [0, 0, 2, 2]], atol=1e-6)
    assert two.shares[..., 1].eq(0).all()


@pytest.mark.parametrize("options", [{}, {"residual": False}, {"mixer": False}, {"allocator": False}])
@pytest.mark.parametrize("expert", range(EXPERTS))
def test_an_absent_experts_tokens_change_nothing(expert, options):
    made, seen = fusion(**options), matrix()
    present = without(expert)
    mine = OWNER.eq(expert)
    noisy = seen.tokens.clone()
    noisy[:, mine] = torch.randn(3, 2, WIDTH) * 30
    sure, elsewhere = seen.confidence.clone(), seen.places.clone()
    sure[:, mine], elsewhere[:, mine] = 0.99, 0.5
    other = ExpertMatrix(noisy, sure, seen.valid, seen.present, OWNER, elsewhere)
    one, two = (made(m.with_presence(present), questions()) for m in (seen, other))
    assert torch.equal(one.tokens[:, ~mine], two.tokens[:, ~mine])
    assert torch.equal(one.shares, two.shares)
    assert torch.equal(one.valid, two.valid)
    assert not one.valid[:, mine].any()
    if one.bias is not None:
        assert torch.equal(one.bias[..., ~mine], two.bias[..., ~mine])


@pytest.mark.parametrize("expert", range(EXPERTS))
def test_masking_an_expert_is_a_model_without_it(expert):
    big, seen = fusion(), matrix()
    big.allocator.load_bias.copy_(torch.tensor([0.3, -0.1, -0.2]))
    rest = [e for e in range(EXPERTS) if e != expert]
    small = fusion(Layout(width=WIDTH, names=("a", "b"), counts=(2, 2), heads=4))
    state = dict(big.state_dict())
    for name in ("allocator.bias_question.weight", "allocator.load_bias", "allocator.load", "residual.alpha"):
        state[name] = state[name][rest]
    small.load_state_dict(state)
    keep = OWNER.ne(expert)
    owner = torch.tensor([rest.index(int(e)) for e in OWNER[keep]])
    cut = [part[:, keep] for part in (seen.tokens, seen.confidence, seen.valid)]
    fewer = ExpertMatrix(*cut, seen.present[:, rest], owner, seen.places[:, keep])
    one, two = big(seen.with_presence(without(expert)), questions()), small(fewer, questions())
    assert torch.allclose(one.tokens[:, keep], two.tokens, atol=1e-5)
    assert torch.allclose(one.shares[..., rest], two.shares, atol=1e-6)
    assert torch.allclose(one.bias[..., keep], two.bias, atol=1e-5)


def test_the_order_of_an_experts_slots_is_nothing():
    made, seen = fusion(), matrix()
    order = torch.tensor([1, 0, 3, 2, 5, 4])
    cut = [part[:, order] for part in (seen.tokens, seen.confidence, seen.valid)]
    turned = ExpertMatrix(*cut, seen.present, OWNER, seen.places[:, order])
    one, two = made(seen, questions()), made(turned, questions())
    assert torch.allclose(one.tokens[:, order], two.tokens, atol=1e-5)
    assert torch.allclose(one.shares, two.shares, atol=1e-6)


def test_shares_depend_on_the_question_and_not_on_the_other_questions():
    made, seen = fusion(), matrix()
    both = made(seen, questions())
    assert (both.shares[:, 0] - both.shares[:, 1]).abs().max() > 1e-3
    alone = made(seen, questions()[:, 1:])
    assert torch.allclose(alone.shares[:, 0], both.shares[:, 1], atol=1e-6)
    assert torch.equal(alone.tokens, both.tokens)


def test_no_expert_at_all_is_finite():
    seen = matrix().with_presence(torch.zeros(3, EXPERTS, dtype=torch.bool))
    for options in ({}, {"allocator": False}):
        out = fusion(**options)(seen, questions())
        assert out.tokens.isfinite().all()
        assert out.shares.eq(0).all()
        assert out.bias is None or out.bias.isfinite().all()
        assert not out.valid.any()


def test_the_same_seed_and_step_draw_the_same_gate():
    made, seen = fusion(), matrix()
    made.residual_keep.fill_(0.5)
    tokens = {}
    for step in range(12):
        one, two = (made(seen, questions(), generator_for(3, "fuse", "residual", step)).tokens for _ in range(2))
        assert torch.equal(one, two)
        tokens[step] = one
    assert len({tuple(t.flatten().tolist()) for t in tokens.values()}) > 1
    assert torch.equal(made(seen, questions()).tokens, made(seen, questions()).tokens)


def test_evaluation_is_the_mean_of_training_passes():
    """1,024 draws; allowed are five standard errors of a gate, times what the gate lets through."""
    made, seen = fusion(), matrix(batch=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        wanted = made(seen, questions(1)).tokens
        mean = sum(made(seen, questions(1), generator).tokens for _ in range(1024)) / 1024
    limit = 5 * (0.8 * 0.2 / 1024) ** 0.5 * (made.residual.alpha[OWNER].unsqueeze(-1) * seen.tokens).abs()
    assert ((mean - wanted).abs() <= limit + 1e-5).all()


def test_without_the_residual_the_mixer_only_adds():
    made, seen = fusion(residual=False), matrix()
    assert made.residual is None
    out = made(seen, questions(), torch.Generator().manual_seed(0))
    assert torch.equal(out.tokens, seen.tokens + made.mixer(seen))
    bare = fusion(mixer=False)
    assert bare.mixer is bare.residual is None
    assert torch.equal(bare(seen, questions()).tokens, seen.tokens)


def test_words_are_matched_with_what_the_expert_said_before_it_was_mixed():
    made, seen = fusion(), matrix()
    out = made(seen, questions())
    unit = seen.tokens / seen.tokens.norm(dim=-1, keepdim=True)
    assert torch.allclose(out.words, unit, atol=1e-5)
    assert torch.equal(AstreaFusion(LAYOUT, word_match=8.0).word_match, torch.tensor([8.0, 8.0, 8.0, 0.0]))
    off = fusion(word_match=0.0)
    assert off.word_match is None
    assert off(seen, questions()).words is None
    assert torch.equal(fusion(allocator=False)(seen, questions()).words.isfinite(), torch.ones_like(seen.tokens).bool())
