"""Reading a few of many tokens: which ones each rule takes, and what a run is told of it.

Letters: B pictures, S questions per picture, M visual tokens.
"""

from __future__ import annotations

import json

import pytest
import torch

from astrea.alignment.matrix import ExpertMatrix
from astrea.common.progress import Reporter
from astrea.evaluation.generate import Predictor
from astrea.fusion.astrea import UNREAD, AstreaFusion
from astrea.fusion.peers.sequence_concat import SequenceConcat
from astrea.fusion.protocol import VisualTokens
from astrea.fusion.registry import build_strategy
from astrea.lab.settings import token_budgets
from astrea.lab.settings.token_budgets import (
    ABOUT_ONE_THING,
    TOKEN_BUDGETS,
    TOKEN_RULES,
    by_token_budget,
    keeps_tokens,
    reading,
)
from astrea.recipes.recipe import Data, World
from astrea.world.evaluation.runner import EncodedTestSets, encode_test_sets, run_tasks
from astrea.world.evaluation.tasks import build_test_sets
from astrea.world.scenes.templates import WORDINGS
from drawn_matrix import LAYOUT, OWNER, matrix

DATA = Data(test_questions=3, test_captions=2, test_retrieval_groups=1)


@pytest.fixture(scope="module")
def encoded(tiny_model) -> EncodedTestSets:
    return encode_test_sets(tiny_model, build_test_sets(World(), DATA))


def read_of(fusion, given, question_BSD, most, rule, seed=0) -> tuple[torch.Tensor, VisualTokens]:
    """Which tokens are read for each question (B, S, M), and what the fusion gave."""
    with reading(fusion, most, TOKEN_RULES[rule], seed):
        visual = fusion(given, question_BSD)
    return (visual.bias > UNREAD / 2) & visual.valid.unsqueeze(1), visual


def alike() -> ExpertMatrix:
    """One picture, of which every token says the same and is little sure of it."""
    tokens = torch.eye(8)[0].expand(1, 8, -1).clone()
    here = torch.ones(1, 8, dtype=torch.bool)
    present, places = torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 8, 2)
    return ExpertMatrix(tokens, torch.full((1, 8), 0.1), here, present, OWNER, places)


@pytest.mark.parametrize("rule", TOKEN_RULES)
@pytest.mark.parametrize("strategy", [AstreaFusion, SequenceConcat])
def test_at_most_so_many_are_read_and_none_that_is_not_there(rule, strategy):
    given, question_BSD = matrix(), torch.randn(4, 2, LAYOUT.width)
    fusion = strategy(LAYOUT).eval()
    for most in (1, 3, 99):
        read_BSM, visual = read_of(fusion, given, question_BSD, most, rule)
        there_B = fusion(given, question_BSD).valid.sum(1)
        assert torch.equal(read_BSM.sum(-1), there_B.clamp(max=most).unsqueeze(1).expand(-1, 2))
        assert torch.equal(visual.valid, read_BSM.any(1))


def test_each_rule_goes_by_its_own():
    """Of one expert's three tokens: the first is sure, the second is what the question says, the third is neither."""
    given = alike()
    given.tokens[0, 1], given.confidence[0, 0] = torch.eye(8)[5], 0.9
    fusion = SequenceConcat(LAYOUT)
    question_BSD = torch.eye(8)[5].view(1, 1, 8)
    assert read_of(fusion, given, question_BSD, 1, "confidence")[0].nonzero().tolist() == [[0, 0, 0]]
    assert read_of(fusion, given, question_BSD, 1, "cosine")[0].nonzero().tolist() == [[0, 0, 1]]
    # Worth weighs both: 2 log 9 = 4.4 of confidence against 4 of cosine, until the first is less sure.
    assert read_of(fusion, given, question_BSD, 1, "worth")[0].nonzero().tolist() == [[0, 0, 0]]
    given.confidence[0, 0] = 0.5
    assert read_of(fusion, given, question_BSD, 1, "worth")[0].nonzero().tolist() == [[0, 0, 1]]
    drawn = {
        tuple(read_of(fusion, given, question_BSD, 1, "random", seed)[0].nonzero()[0].tolist()) for seed in range(9)
    }
    assert len(drawn) > 2


def test_worth_hears_the_gate():
    """Of tokens that are alike in all else, those of the expert that weighs more are read."""
    given, fusion = alike(), AstreaFusion(LAYOUT).eval()
    shares = torch.tensor([0.1, 0.2, 0.7]).view(1, 1, 3)
    fusion.allocator.weigh = lambda question_BSD, matrix: shares
    read_BSM, _ = read_of(fusion, given, torch.randn(1, 1, 8), 3, "worth")
    assert set(given.expert[read_BSM[0, 0]].tolist()) == {2}


def test_afterwards_all_are_read_again():
    fusion, given, question_BSD = AstreaFusion(LAYOUT).eval(), matrix(), torch.randn(4, 1, LAYOUT.width)
    before = fusion(given, question_BSD)

    def failing():
        with reading(fusion, 1, TOKEN_RULES["worth"], 0):
            assert fusion(given, question_BSD).valid.sum() == 4
            fusion(given, question_BSD[..., :1])  # of another width

    with pytest.raises(RuntimeError):
        failing()
    after = fusion(given, question_BSD)
    assert torch.equal(after.valid, before.valid)
    assert torch.equal(after.bias, before.bias)


def test_answers_are_those_of_the_tokens_read(tiny_model, tiny_processor, encoded):
    """A model that may read all tokens answers as ever, and one that reads two of them otherwise."""
    predictor = Predictor(tiny_model, tiny_processor.tokenizer)
    texts, pictures = ["what colour is the cat?"] * 3, torch.arange(3)

    def logits(most):
        with reading(tiny_model.fusion, most, TOKEN_RULES["worth"], 0):
            inputs = predictor.prompts(texts, pictures=True)
            features = predictor.rows(encoded.questions, pictures)
            return tiny_model(**inputs, features=features, present=predictor.present(3), use_cache=False).logits[:, -1]

    inputs = predictor.prompts(texts, pictures=True)
    features = predictor.rows(encoded.questions, pictures)
    plain = tiny_model(**inputs, features=features, present=predictor.present(3), use_cache=False).logits[:, -1]
    torch.testing.assert_close(logits(999), plain)
    assert not torch.allclose(logits(2), plain)


def test_a_run_is_told_what_each_rule_costs(tiny_model, tiny_processor, encoded):
    found = by_token_budget(tiny_model, tiny_processor.tokenizer, encoded, 0)
    asked = [item for item in encoded.sets.questions if item.question.template in ABOUT_ONE_THING]
    assert found["items"] == len(asked) > 0
    assert set(found) == {"items", "tokens", "all", *map(str, TOKEN_BUDGETS)}
    assert all(set(found[str(most)]) == set(TOKEN_RULES) for most in TOKEN_BUDGETS)
    # Small pictures have fewer tokens than the largest budget, and then nothing is lost.
    assert found["tokens"] <= 28
    assert set(found["64"].values()) == {found["all"]}
    json.dumps(found, allow_nan=False)


def test_accuracy_is_that_of_the_questions_about_one_thing(tiny_model, tiny_processor, encoded, monkeypatch):
    """A model that is right about one thing and wrong about all others."""
    seen = []

    def spied(predictor, asked, tasks, **more):
        seen.append({item.question.template for item in asked.sets.questions})
        return run_tasks(predictor, asked, tasks, **more)

    monkeypatch.setattr(token_budgets, "run_tasks", spied)
    found = by_token_budget(tiny_model, tiny_processor.tokenizer, encoded, 0)
    assert all(templates and templates <= set(ABOUT_ONE_THING) for templates in seen)
    assert len(seen) == 1 + len(TOKEN_BUDGETS) * len(TOKEN_RULES)
    predictor = Predictor(tiny_model, tiny_processor.tokenizer)
    outcome = run_tasks(predictor, encoded, ("attribute", "knowledge"), blind=False, label="test", report=Reporter())
    items = [item for item in encoded.sets.questions if item.question.task in outcome.per_item]
    right = [*outcome.per_item["attribute"], *outcome.per_item["knowledge"]]
    wanted = [hit for hit, item in zip(right, items, strict=True) if item.question.template in ABOUT_ONE_THING]
    assert found["all"] == pytest.approx(100 * sum(wanted) / len(wanted))


def test_whose_tokens_are_the_experts_own():
    assert set(ABOUT_ONE_THING) <= set(WORDINGS)
    assert keeps_tokens(AstreaFusion(LAYOUT))
    assert keeps_tokens(SequenceConcat(LAYOUT))
    assert not keeps_tokens(build_strategy("channel_concat", LAYOUT, {}, allow_import=False))


def test_nothing_is_told_of_a_strategy_with_other_tokens(tiny_model, tiny_processor, encoded, monkeypatch):
    monkeypatch.setattr(token_budgets, "keeps_tokens", lambda fusion: False)
    assert by_token_budget(tiny_model, tiny_processor.tokenizer, encoded, 0) == {}
