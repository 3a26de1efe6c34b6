"""Experts that are computed for a question are those with the most weight that fit."""

from __future__ import annotations

import pytest
import torch

from astrea.evaluation.generate import Predictor
from astrea.lab.settings.budget import Budget
from astrea.lab.settings.question_gate import QuestionGate
from astrea.recipes.recipe import Data, World
from astrea.world.evaluation.runner import encode_test_sets
from astrea.world.evaluation.tasks import build_test_sets

ASKED = ("is there a cat?", "what colour is the dog?")


@pytest.fixture(scope="module")
def features(tiny_model):
    data = Data(test_questions=3, test_captions=2, test_retrieval_groups=1)
    return encode_test_sets(tiny_model, build_test_sets(World(), data)).questions


@pytest.fixture
def gate(tiny_model, tiny_processor, features, monkeypatch) -> QuestionGate:
    """Of two experts, all of one token, with weights that are told by the question's first word."""
    found = QuestionGate(
        tiny_model, tiny_processor.tokenizer, features, Budget(2, 2), dict.fromkeys(tiny_model.experts.names, 1)
    )
    told = {"is": [0.1, 0.4, 0.3, 0.2], "what": [0.4, 0.1, 0.2, 0.3]}
    monkeypatch.setattr(found, "weights", lambda question: torch.tensor(told[question.split()[0]]))
    return found


def test_each_question_is_answered_by_its_own_experts(gate, tiny_model, tiny_processor, features, monkeypatch):
    seen = []
    shares = tiny_model.shares

    def spied(*given, **more):
        seen.append(more["present"].tolist())
        return shares(*given, **more)

    monkeypatch.setattr(tiny_model, "shares", spied)
    pictures = torch.tensor([0, 1])
    found = gate.answer(ASKED, features, pictures)
    assert seen == [[[False, True, True, False], [True, False, False, True]]]
    names = tiny_model.experts.names
    alone = [
        Predictor(tiny_model, tiny_processor.tokenizer, masked=masked).answer(
            [question], features, pictures[at : at + 1]
        )
        for at, (question, masked) in enumerate(zip(ASKED, [(names[0], names[3]), names[1:3]], strict=True))
    ]
    assert found.texts == [each.texts[0] for each in alone]


def test_what_is_used_and_what_it_costs(gate, tiny_model, features):
    gate.answer([*ASKED, ASKED[0]], features, torch.tensor([0, 1, 2]))
    names = tiny_model.experts.names
    assert gate.used() == dict(zip(names, [1 / 3, 2 / 3, 2 / 3, 1 / 3], strict=True))
    assert gate.cost(dict(zip(names, [4, 3, 2, 1], strict=True))) == pytest.approx(0.5)


def test_weights_are_the_mean_over_usual_pictures_and_hear_the_question(tiny_model, tiny_processor, features):
    sizes = dict.fromkeys(tiny_model.experts.names, 1)
    gate = QuestionGate(tiny_model, tiny_processor.tokenizer, features, Budget(2, 2), sizes)
    predictor = Predictor(tiny_model, tiny_processor.tokenizer)
    count = min(16, len(next(iter(features.values())).tokens))
    asked = predictor.answer([ASKED[0]] * count, features, torch.arange(count))
    torch.testing.assert_close(gate.weights(ASKED[0]), asked.shares.mean(0))
