from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from astrea import AstreaConfig, AstreaForConditionalGeneration
from astrea.common.progress import Reporter
from astrea.data.packing import Packer, Turn
from astrea.recipes.recipe import Data, World
from astrea.world.evaluation.contribution import (
    MIN_ITEMS,
    calibration,
    cell_means,
    contributions,
    turns_of,
)
from astrea.world.evaluation.ranks import average_ranks, spearman
from astrea.world.evaluation.runner import EncodedTestSets, encode_test_sets
from astrea.world.evaluation.tasks import TestSets, VqaItem, build_test_sets
from astrea.world.scenes.captions import captions
from astrea.world.scenes.vocabulary import CONDITIONS

TestSets.__test__ = False  # type: ignore[attr-defined]  # no test class, whatever its name says
TASKS = ("counting", "caption", "area", "existence")


@pytest.fixture(scope="module")
def encoded(tiny_model) -> EncodedTestSets:
    return encode_test_sets(
        tiny_model, build_test_sets(World(), Data(test_questions=6, test_captions=3, test_retrieval_groups=1))
    )


@pytest.fixture(scope="module")
def concat_model(tiny_model) -> AstreaForConditionalGeneration:
    """The experts and the language model of the tiny model, with a fusion that weighs nothing."""
    config = AstreaConfig(**{**tiny_model.config.to_dict(), "strategy": "sequence_concat", "fusion": {}})
    model = AstreaForConditionalGeneration(config).eval()
    own = {name: value for name, value in tiny_model.state_dict().items() if not name.startswith("model.fusion.")}
    model.load_state_dict(own, strict=False)
    return model


def test_items_are_those_of_the_task_with_their_truth(encoded):
    mine = [item for item in encoded.sets.questions if item.question.task == "counting"]
    assert turns_of(encoded, "counting") == [(i.scene, Turn(i.question.text, i.question.answer)) for i in mine]
    told = [captions(scene, 3, index)[0] for index, scene in enumerate(encoded.sets.described["caption"])]
    assert [(picture, turn.answer) for picture, turn in turns_of(encoded, "caption")] == list(enumerate(told))


def test_contributions_are_those_of_every_question_alone(tiny_model, tiny_processor, encoded):
    tokenizer, names = tiny_processor.tokenizer, tiny_model.experts.names
    worth = contributions(tiny_model, tokenizer, encoded, TASKS, batch=3, report=Reporter())
    assert tuple(worth) == TASKS
    asked = [picture for task in TASKS if task != "caption" for picture, _ in turns_of(encoded, task)]
    assert len(set(asked)) < len(asked)  # some share a row
    packer = Packer(tokenizer, tiny_model.num_visual_tokens)

    @torch.inference_mode()
    def loss(features, picture: int, turn: Turn) -> float:
        shown = {name: part.rows(slice(picture, picture + 1)) for name, part in features.items()}
        return float(tiny_model(**packer.pack([[turn]]).model_inputs(), features=shown).loss)

    for task in ("caption", "area"):
        features = encoded.described["caption"] if task == "caption" else encoded.questions
        without = [{name: part for name, part in features.items() if name != lost} for lost in names]
        for number, (picture, turn) in enumerate(turns_of(encoded, task)):
            whole = loss(features, picture, turn)
            alone = [loss(fewer, picture, turn) - whole for fewer in without]
            assert worth[task][number].tolist() == pytest.approx(alone, abs=1e-4)
        assert worth[task].abs().amax(0).min() > 1e-3


def test_a_strategy_that_reads_one_question_per_row_gets_such_rows(tiny_model, tiny_processor, encoded, monkeypatch):
    packed = contributions(tiny_model, tiny_processor.tokenizer, encoded, TASKS, report=Reporter())
    whole, turns = Packer.pack, []
    monkeypatch.setattr(Packer, "pack", lambda self, rows: turns.extend(map(len, rows)) or whole(self, rows))
    monkeypatch.setattr(tiny_model.fusion, "per_question", True, raising=False)
    alone = contributions(tiny_model, tiny_processor.tokenizer, encoded, TASKS, report=Reporter())
    assert set(turns) == {1}
    for task in TASKS:
        assert torch.allclose(alone[task], packed[task], atol=1e-4)


def test_an_expert_that_says_nothing_contributes_nothing(concat_model, tiny_processor, encoded):
    part = encoded.questions["detection"]
    silent = replace(part, confidence=torch.zeros_like(part.confidence))
    mute = replace(encoded, questions={**encoded.questions, "detection": silent})
    worth = contributions(concat_model, tiny_processor.tokenizer, mute, ["area", "existence"], report=Reporter())
    at = concat_model.experts.names.index("detection")
    for deltas in worth.values():
        assert deltas[:, at].abs().max() <= 1e-6
        assert deltas.abs().max() > 1e-3


def made_up(conditions: list[int]) -> EncodedTestSets:
    """A test set of which nothing is known but the conditions of its pictures; one question of ``area`` each."""
    scenes = [SimpleNamespace(condition=condition) for condition in conditions]
    asked = [VqaItem(index, SimpleNamespace(task="area", text="how large?")) for index in range(len(scenes))]
    return EncodedTestSets(TestSets(scenes, asked, {}, [], [], []), {}, {}, {})


def test_cells_are_means_by_condition():
    values = torch.tensor([[1.0, 5.0], [2.0, 6.0], [9.0, 0.0]])
    assert cell_means(made_up([2, 2, 0]), {"area": values}, ["x", "y"]) == {
        "area": {CONDITIONS[0]: {"x": 9.0, "y": 0.0}, CONDITIONS[2]: {"x": 1.5, "y": 5.5}}
    }


def test_calibration_ranks_the_cells_that_are_large_enough():
    conditions = [0] * MIN_ITEMS + [1] * MIN_ITEMS + [2] * (MIN_ITEMS - 1)
    encoded = made_up(conditions)
    # Cell means of the two large conditions: shares .1 .9 .2 .8; contributions 0 4 3 5. The small one would spoil it.
    shares = torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.6, 0.4]])[conditions]
    worth = torch.tensor([[0.0, 4.0], [3.0, 5.0], [-90.0, 90.0]])[conditions]
    found = calibration(encoded, {"area": shares}, {"area": worth})
    # Ranks 1 4 2 3 and 1 3 2 4: 1 - 6 * (0 + 1 + 0 + 1) / (4 * 15).
    assert found["rank_correlation"] == pytest.approx(0.8)
    assert found["per_task"] == pytest.approx(1)
    # As parts of their cells' sums the contributions rank 1 4 2 3 too.
    assert found["relative"] == pytest.approx(1)
    assert found["picture_share"] == pytest.approx(1)  # the same is asked of all
    assert (found["cells"], found["min_items"]) == (4, MIN_ITEMS)
    few = made_up([0] * (MIN_ITEMS - 1))
    none = calibration(few, {"area": shares[: MIN_ITEMS - 1]}, {"area": worth[: MIN_ITEMS - 1]})
    assert none["cells"] == 0
    assert np.isnan(none["rank_correlation"])
    assert np.isnan(none["per_task"])


def test_spearman_with_ties_by_hand():
    assert average_ranks(np.array([4.0, 2.0, 1.0, 2.0])).tolist() == [4, 2.5, 1, 2.5]
    # Ranks 1 2.5 2.5 4 and 1 4 2.5 2.5; about their mean -1.5 0 0 1.5 and -1.5 1.5 0 0: 2.25 / 4.5.
    assert spearman(np.array([1, 2, 2, 4]), np.array([10, 30, 20, 20])) == pytest.approx(0.5)


def test_spearman_knows_order_alone():
    a = np.array([0.3, -2.0, 7.0, 1.0])
    assert spearman(a, np.exp(a)) == pytest.approx(1)
    assert spearman(a, -(a**3)) == pytest.approx(-1)
    assert np.isnan(spearman(a, np.ones(4)))
