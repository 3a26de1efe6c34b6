"""Thrift: what a token promises, and what happens to tokens that promise too little."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from astrea.fusion.astrea import UNREAD, AstreaFusion
from astrea.fusion.pruning import MAX_THRESHOLD, draw_thresholds, token_score
from drawn_matrix import LAYOUT, matrix

SURE = torch.full((5, 8), 0.8)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(2)


def fusion(**options) -> AstreaFusion:
    torch.manual_seed(0)
    made = AstreaFusion(LAYOUT, trust=False, **options)
    torch.nn.init.normal_(made.allocator.bias_question.weight)
    return made


def parts(batch: int = 5, questions: int = 2):
    torch.manual_seed(1)
    valid = torch.rand(batch, 8) < 0.7
    valid[:, 0] = True
    return torch.randn(batch, questions, 8), valid, F.normalize(torch.randn(batch, 8, 8), dim=-1)


LEAN = torch.ones(5, 2)


def test_worth_is_relative_and_somebody_is_always_worth_reading():
    log_share, valid, words = parts()
    found = token_score(log_share, LEAN, SURE, valid, words, torch.randn(5, 2, 8))
    assert (found[~valid.unsqueeze(1).expand_as(found)] == 0).all()
    assert (found.isinf().sum(-1) == 1).all()
    # Equal shares and nothing named: every token promises the same, and none more than another.
    same = token_score(torch.zeros(5, 2, 8), LEAN, SURE, valid, None, torch.randn(5, 2, 8))
    assert same[valid.unsqueeze(1).expand_as(same)].isinf().all()


def test_a_larger_share_and_a_named_word_promise_more():
    valid = torch.ones(1, 4, dtype=torch.bool)
    words = torch.eye(4).unsqueeze(0)
    flat = torch.zeros(1, 1, 4)
    asked = torch.tensor([[[0.0, 0.1, 1.0, 0.5]]])
    sure = torch.ones(1, 4)
    found = token_score(flat, LEAN[:1, :1], sure, valid, words, asked)[0, 0]
    assert found[2].isinf()
    assert found[3] > found[1] > found[0]
    shared = token_score(torch.tensor([[[0.0, -1.0, -2.0, 1.0]]]), LEAN[:1, :1], sure, valid, None, asked)[0, 0]
    assert shared.argsort().tolist() == [2, 1, 0, 3]


def test_a_question_that_names_nothing_is_left_to_the_shares():
    log_share, valid, words = parts()
    apart = -torch.ones(5, 2, 8)
    shares_alone = token_score(log_share, LEAN, SURE, valid, None, apart)
    assert torch.equal(token_score(log_share, LEAN, SURE, valid, words.abs(), apart), shares_alone)
    assert not torch.equal(token_score(log_share, LEAN, SURE, valid, words.abs(), -apart), shares_alone)


def test_what_an_expert_is_not_sure_of_promises_less():
    valid, sure = torch.ones(1, 4, dtype=torch.bool), torch.tensor([[0.9, 0.1, 0.5, 0.7]])
    found = token_score(torch.zeros(1, 1, 4), LEAN[:1, :1], sure, valid, None, torch.zeros(1, 1, 4))[0, 0]
    assert found.argsort().tolist() == [1, 2, 3, 0]


def test_a_question_that_leans_on_nobody_is_promised_less_by_all():
    log_share, valid, words = parts()
    asked = torch.randn(5, 2, 8)
    full = token_score(log_share, LEAN, SURE, valid, words, asked)
    half = token_score(log_share, LEAN / 2, SURE, valid, words, asked)
    assert torch.equal(half, full / 2)
    assert half.isinf().any()


def test_nothing_to_read_is_no_error():
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    found = token_score(
        torch.zeros(2, 1, 3), LEAN[:2, :1], torch.zeros(2, 3), nothing, torch.zeros(2, 3, 4), torch.zeros(2, 1, 4)
    )
    assert not found.isnan().any()


def test_a_threshold_takes_the_weak_out_of_the_row():
    seen, questions = matrix(), torch.randn(4, 1, 8)
    every, thrifty = fusion()(seen, questions), fusion(threshold=0.5)(seen, questions)
    assert torch.equal(every.shares, thrifty.shares)
    read = (
        token_score(every.bias, every.shares.sum(-1), seen.confidence, seen.valid, every.words, questions)[:, 0] >= 0.5
    )
    assert (read & seen.valid).any(1).all()
    assert not read[seen.valid].all()
    assert torch.equal(thrifty.valid, seen.valid & read)
    assert torch.equal(every.valid, seen.valid)
    assert (thrifty.bias[:, 0][~read] == UNREAD).all()
    assert torch.equal(thrifty.bias[:, 0][read], every.bias[:, 0][read])


def test_a_token_stays_in_the_row_while_one_question_reads_it():
    seen, questions = matrix(), torch.randn(4, 3, 8)
    thrifty = fusion(threshold=0.8)(seen, questions)
    read = thrifty.bias > UNREAD / 2
    assert torch.equal(thrifty.valid, seen.valid & read.any(1))
    assert (read.any(1) & ~read.all(1)).any()


def test_in_training_some_questions_read_little_and_the_rest_all():
    made, seen = fusion(thrifty=0.3), matrix(64, seed=1)
    out = made(seen, torch.randn(64, 4, 8), torch.Generator().manual_seed(0))
    unread = (out.bias <= UNREAD) & seen.valid.unsqueeze(1)
    assert 0.1 < unread.any(-1).float().mean() < 0.4
    assert torch.equal(out.valid, seen.valid)
    never = fusion(thrifty=0.0)(seen, torch.randn(64, 4, 8), torch.Generator().manual_seed(0))
    assert (never.bias > UNREAD / 2).all()


def test_thresholds_are_drawn_as_often_as_told():
    drawn = draw_thresholds(torch.zeros(2000, 5, 8), 0.3, torch.Generator().manual_seed(0))
    assert drawn.shape == (2000, 5, 1)
    assert abs(float((drawn > 0).float().mean()) - 0.3) < 0.02
    assert 0.95 * MAX_THRESHOLD < float(drawn.max()) <= MAX_THRESHOLD
