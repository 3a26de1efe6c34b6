"""Trust: agreement against a naive loop, and what follows when an expert is not believed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.astrea import AstreaFusion
from astrea.fusion.reliability import NEAR, ReliabilityHead, agreement, select_reliable, separation, tokens_of
from drawn_matrix import LAYOUT, OWNER, matrix


def test_agreement_is_what_a_loop_finds():
    seen = matrix()
    unit = F.normalize(seen.tokens, dim=-1)
    found, worst = agreement(unit @ unit.transpose(1, 2), seen, tokens_of(seen))
    for b in range(4):
        for e in range(3):
            for f in range(3):
                mine = [t for t in range(8) if OWNER[t] == e and seen.valid[b, t]]
                theirs = [t for t in range(8) if OWNER[t] == f and seen.valid[b, t]]
                wanted = least = 0.0
                if mine and theirs:
                    near = [max(float(F.cosine_similarity(seen.tokens[b, t], seen.tokens[b, u], 0)) for u in theirs)
                            for t in mine]  # fmt: skip
                    weights = [float(seen.confidence[b, t]) for t in mine]
                    least = min(near)
                    wanted = sum(w * n for w, n in zip(weights, near, strict=True)) / sum(weights)
                assert float(found[b, e, f]) == pytest.approx(wanted, abs=1e-5)
                assert float(worst[b, e, f]) == pytest.approx(least, abs=1e-5)


def test_tokens_that_look_elsewhere_are_a_weaker_echo():
    nowhere = float("nan")
    places = torch.tensor([[[0.1, 0.1], [0.1, 0.1 + NEAR / 2], [0.9, 0.1], [nowhere, nowhere]]])
    found = separation(places)[0]
    torch.testing.assert_close(found[0], torch.tensor([0.0, 0.25, 1.0, 0.0]))
    assert torch.equal(found, found.T)
    places.requires_grad_()
    separation(places).sum().backward()
    assert places.grad.isfinite().all()


def test_an_absent_expert_is_as_if_it_had_never_been():
    seen, judge = matrix(), ReliabilityHead(8, 3)
    torch.nn.init.normal_(judge.score.weight)
    gone = torch.tensor([[True, False, True]]).expand(4, -1)
    other = ExpertMatrix(
        torch.where((OWNER == 1)[:, None], torch.randn(8, 8), seen.tokens), seen.confidence, seen.valid, seen.present,
        OWNER, seen.places,
    )  # fmt: skip
    before, after = judge(seen.with_presence(gone)), judge(other.with_presence(gone))
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert not torch.equal(judge(seen)[:, [0, 2]], before[:, [0, 2]])


def test_trust_learns_to_find_the_one_who_tells_of_another_picture():
    """Three experts say the same of each picture in their own slots; one is swapped with another picture's."""
    torch.manual_seed(0)
    judge = ReliabilityHead(8, 3)
    optimizer = torch.optim.Adam(judge.parameters(), lr=1e-2)

    def batch(count: int) -> tuple[ExpertMatrix, torch.Tensor]:
        facts = torch.randn(count, 3, 8)
        tokens = facts[:, [0, 1, 2, 0, 1, 0, 1, 2]]
        liar = torch.randint(-1, 3, (count,))
        lies = (liar[:, None] == OWNER)[..., None]
        tokens = torch.where(lies, tokens.roll(1, 0), tokens)
        sure = torch.ones(count, 8)
        places = torch.full((count, 8, 2), float("nan"))
        return ExpertMatrix(tokens, sure, sure > 0, torch.ones(count, 3).bool(), OWNER, places), liar

    for _ in range(150):
        seen, liar = batch(64)
        honest = (liar[:, None] != torch.arange(3)).float()
        judge.observe(judge.agreements(seen))
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(judge(seen), honest).backward()
        optimizer.step()
    seen, liar = batch(400)
    told = judge(seen) > 0
    assert (told == (liar[:, None] != torch.arange(3))).float().mean() > 0.9  # always honest: 0.75


def test_what_is_usual_is_the_mean_of_what_was_observed():
    judge, first, second = ReliabilityHead(8, 3), matrix(), matrix(seed=5)
    judge.observe(judge.agreements(first))
    judge.observe(judge.agreements(second))
    both = torch.stack([judge.agreements(m) for m in (first, second)]).detach()
    torch.testing.assert_close(judge.usual, both.mean((0, 1)))
    assert (judge.spread >= 0.01).all()


def fusion(**options) -> AstreaFusion:
    torch.manual_seed(0)
    made = AstreaFusion(LAYOUT, heads=2, **options)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return made


def test_who_is_not_believed_is_absent():
    made, seen = fusion(), matrix()
    questions = torch.randn(4, 2, 8)
    made.trust.forward = lambda matrix: torch.tensor([[2.0, -1.0, 2.0]]).expand(4, -1)  # type: ignore[method-assign]
    out = made(seen, questions)
    made.trust.forward = lambda matrix: torch.full((4, 3), 2.0)  # type: ignore[method-assign]
    wanted = made(seen.with_presence(torch.tensor([[True, False, True]]).expand(4, -1)), questions)
    assert torch.equal(out.shares, wanted.shares)
    assert torch.equal(out.valid, wanted.valid)
    assert torch.equal(out.tokens[out.valid], wanted.tokens[out.valid])
    assert (out.shares[..., 1] == 0).all()


EVERYBODY = torch.ones(3, dtype=torch.bool)


def said(*rows):
    """A judge that says the same whatever is left to hear."""
    return lambda matrix: torch.tensor(rows)


def test_somebody_is_always_believed():
    trust = said([-3.0, -1.0, -2.0], [1.0, -1.0, 2.0], [-5.0, 4.0, -1.0], [-9.0, -5.0, -7.0])
    present = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 0, 1], [1, 0, 0]]).bool()
    wanted = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 0, 1], [1, 0, 0]]).bool()
    assert torch.equal(select_reliable(trust, matrix().with_presence(present), EVERYBODY) & present, wanted)


def test_who_was_doubted_because_of_a_liar_is_believed_without_it():
    heard = []

    def judge(seen):
        heard.append(seen.present)
        # The second lies about the first two pictures; while it is heard, the third looks dishonest too.
        lies = torch.tensor([True, True, False, False])
        return torch.stack([torch.ones(4), torch.where(lies, -2.0, 1.0), 0.5 - (lies & seen.present[:, 1]).float()], 1)

    stays = select_reliable(judge, matrix(), EVERYBODY)
    assert stays.tolist() == [[True, False, True]] * 2 + [[True] * 3] * 2
    assert heard[0].all()
    assert [who.tolist() for who in heard[1:]] == [stays.tolist()]


def test_nobody_is_judged_twice_where_all_are_believed():
    heard = []
    judge = said(*[[0.1, 0.2, 0.3]] * 4)
    assert select_reliable(lambda seen: heard.append(seen) or judge(seen), matrix(), EVERYBODY).all()
    assert len(heard) == 1


def test_who_is_not_judged_is_believed_and_does_not_stand_in_for_the_last_one():
    stays = select_reliable(said(*[[-1.0, -2.0, -9.0]] * 4), matrix(), torch.tensor([True, True, False]))
    assert stays.tolist() == [[True, False, True]] * 4
    alone = select_reliable(said(*[[-1.0, -2.0, -9.0]] * 4), matrix(), torch.tensor([False, False, False]))
    assert alone.all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_belief_is_what_a_loop_finds(seed):
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(4, 3, generator=generator) < 0.8
    base, heed = torch.randn(4, 3, generator=generator), torch.randn(3, 3, generator=generator)

    def judge(seen):
        return base + seen.present.float() @ heed

    stays = select_reliable(judge, matrix().with_presence(present), EVERYBODY)
    for row in range(4):
        left = [e for e in range(3) if present[row, e]]
        while len(left) > 1:
            here = torch.zeros(3)
            here[left] = 1.0
            logits = base[row] + here @ heed
            worst = min(left, key=lambda e: float(logits[e]))
            if logits[worst] > 0:
                break
            left.remove(worst)
        assert (stays[row] & present[row]).nonzero().flatten().tolist() == left
