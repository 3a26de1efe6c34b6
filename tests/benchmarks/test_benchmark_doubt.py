"""The benchmark of "can't tell": its questions are none of training's; it writes every figure."""

from __future__ import annotations

import json

import numpy as np
import pytest

from astrea.recipes.recipe import World
from astrea.world.evaluation.tasks import TASKS
from astrea.world.scenes.paraphrases import PARAPHRASES
from astrea.world.scenes.unanswerable import OUT_OF_SCOPE, UNKNOWN_THINGS
from benchmark_scripts import BENCHMARKS, benchmark_script


@pytest.fixture(scope="module")
def script():
    return benchmark_script("doubt")


def test_nothing_asked_is_as_in_training(script):
    items = script.answerable(World(), 8) + script.unanswerable(World(), 2)
    assert {item.kind for item in items} == {
        "answerable", "page", "photograph", "unknown thing", "false premise", "out of scope"
    }  # fmt: skip
    assert not set(script.UNKNOWN) & set(UNKNOWN_THINGS)
    assert not set(script.OUT_OF_SCOPE) & set(OUT_OF_SCOPE)
    held = {text for texts in PARAPHRASES.values() for text in texts.held_out}
    for item in items:
        if item.kind != "out of scope":
            assert any(item.text.startswith(text.split("{")[0]) for text in held), item.text
    assert all(isinstance(item.picture, np.ndarray) for item in items if item.kind in ("page", "photograph"))
    assert all(bool(item.answer) == (item.kind == "answerable") for item in items)


def test_it_measures_and_writes(script, tmp_path, capsys):
    out = tmp_path / "deep" / "doubt.json"
    made = script.main(["--answerable", "3", "--each", "1", "--test-questions", "1", "--out", str(out)])
    assert json.loads(out.read_text()) == made
    assert made["questions"] == len(made["items"]) == 8
    decided = [item["given"] == bool(item["truth"]) for item in made["items"]]
    assert made["decision_accuracy"] == pytest.approx(100 * np.mean(decided), abs=0.01)
    twelve = made["twelve_tasks"]
    assert set(twelve["tasks"]) == set(twelve["tasks_with_declined_as_wrong"]) == set(TASKS)
    assert twelve["average_with_declined_as_wrong"] <= twelve["average"]


def test_the_committed_figures_are_this_model_s_and_hold(script):
    from astrea.model.components import CARD
    from astrea.world.bundled import BUNDLED_MODEL

    told = json.loads((BENCHMARKS / "results" / "doubt.json").read_text())
    assert told["sha256"] == json.loads((BUNDLED_MODEL / CARD).read_text())["sha256"]
    assert told["questions"] == 200
    assert told["decision_accuracy"] >= 85
    unlike = {
        kind: 100
        * np.mean([any(script.UNLIKE in said for said in i["doubts"]) for i in told["items"] if i["kind"] == kind])
        for kind in ("photograph", "answerable")
    }
    assert unlike == pytest.approx({kind: told["called_unlike"][kind] for kind in unlike}, abs=0.01)
    assert unlike["photograph"] >= 80
    assert unlike["answerable"] <= 10
    errors = told["calibration_error"]
    assert errors["confidence"] < errors["probability_of_the_words"]
    assert told["twelve_tasks"]["average"] - told["twelve_tasks"]["average_with_declined_as_wrong"] <= 3
