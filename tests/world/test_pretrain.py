"""Only the parts that a recipe uses are trained."""

from __future__ import annotations

import json
import sys

import pytest

from astrea.common.progress import Reporter
from astrea.model.components import BUNDLED, LANGUAGE, NEUTRAL
from astrea.recipes.pretraining import PretrainPart
from astrea.training.assembly import assemble
from astrea.training.trainer import train
from astrea.world import pretrain as pretraining
from astrea.world.experts.compact import COMPACT
from astrea.world.pretrain import parts_of, pretrain
from repository import EXAMPLES

LLAMA = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
         "num_attention_heads": 2, "vocab_size": 2000, "max_position_embeddings": 512}  # fmt: skip
BRIEF = {"expert": {"steps": 1, "batch": 2}, "llm": {"steps": 1, "batch": 2}, "min_accuracy": 0}
DETECTION = {"detection": {"kind": "detection"}}
DESCRIBED = {"kind": "detection", "architecture": {"model_type": "yolos"}}
ELSEWHERE = {"kind": "detection", "checkpoint": "a/folder"}


def test_every_compact_expert_and_the_tiny_language_model(make_run):
    assert parts_of(make_run()) == (*COMPACT, LANGUAGE)


@pytest.mark.parametrize(
    ("changes", "used"),
    [
        ({"experts": DETECTION}, ("detection", LANGUAGE)),
        # The names are the user's own, the order is that of the parts, and two of a kind are one part.
        (
            {"experts": {"a": {"kind": "detection"}, "b": {"kind": "captioning"}, "c": {"kind": "detection"}}},
            ("captioning", "detection", LANGUAGE),
        ),
        ({"experts": {"a": ELSEWHERE, "b": DESCRIBED}}, (LANGUAGE,)),
        ({"experts": {"a": ELSEWHERE, "b": {"kind": "segmentation"}}}, ("segmentation", LANGUAGE)),
        ({"experts": DETECTION, "llm": {"architecture": LLAMA}}, ("detection",)),
        ({"experts": DETECTION, "llm": {"checkpoint": "a/folder"}}, ("detection",)),
        ({"experts": DETECTION, "model": {"pretrained_llm": False}}, ("detection",)),
        (
            {
                "experts": {"student": {"kind": "student"}},
                "distill": {"teachers": {"a": {"kind": "classification"}, "b": ELSEWHERE}},
            },
            ("classification", LANGUAGE),
        ),
        ({"experts": {"palette": {"kind": "palette_expert:PaletteExpert"}}, "llm": {"architecture": LLAMA}}, ()),
    ],
)
def test_the_parts_that_a_recipe_uses(make_run, changes, used):
    assert parts_of(make_run(**changes)) == used


@pytest.fixture
def unjudged(monkeypatch):
    """Experts are not scored on their validation scenes."""
    monkeypatch.setattr(pretraining, "expert_score", lambda *args: {})


def test_they_alone_are_trained_and_the_model_starts_from_them(make_run, unjudged, tmp_path):
    run = make_run(experts=DETECTION, pretraining=BRIEF, llm={"architecture": LLAMA})
    pretrain(run, tmp_path, report=Reporter())
    assert {path.name for path in tmp_path.iterdir()} == {"detection.safetensors", "card.json"}
    card = json.loads((tmp_path / "card.json").read_text())
    assert list(card["sha256"]) == list(card["scores"]) == ["detection"]
    assert card["ground_truth_accuracy"] is None
    assemble(run, tmp_path)
    # Named, it is another matter; what is there already is kept and stands on the card too.
    pretrain(run, tmp_path, report=Reporter(), only=["captioning"])
    assert list(json.loads((tmp_path / "card.json").read_text())["sha256"]) == ["captioning", "detection"]


def test_a_run_from_scratch_that_uses_none_trains_none_and_goes_on(make_run, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    palette = {"palette": {"kind": "palette_expert:PaletteExpert"}}
    stages = {"align__steps": 1, "align__progressive": False, "fuse__steps": 0, "tune__steps": 0}
    run = make_run(pretrain="scratch", experts=palette, llm={"architecture": LLAMA}, data={"train_scenes": 8},
                   **stages)  # fmt: skip
    assert train(run, tmp_path / "run", report=Reporter()).is_dir()
    sys.modules.pop("palette_expert", None)
    assert not (tmp_path / "run" / "parts").exists()


def test_a_neutral_language_model_beside_the_shipped_experts(make_run, unjudged, monkeypatch, tmp_path):
    monkeypatch.setattr(pretraining, "sentence_perplexity", lambda objective: 7.5)
    gate = {
        **BRIEF,
        "llm": {**BRIEF["llm"], "text": "sentences"},
        "min_accuracy": 1,
    }  # it answers nothing, and need not
    run = make_run(pretraining=gate)
    pretrain(run, tmp_path, report=Reporter(), shipped=list(COMPACT))
    card = json.loads((tmp_path / "card.json").read_text())
    shipped = json.loads((BUNDLED / "card.json").read_text())
    assert {n: card["sha256"][n] for n in COMPACT} == {n: shipped["sha256"][n] for n in COMPACT}
    assert card["sha256"][LANGUAGE] != shipped["sha256"][LANGUAGE]
    assert (card["ground_truth_accuracy"], card["sentence_perplexity"]) == (None, 7.5)
    assert card["pretraining"]["llm"]["text"] == "sentences"
    assemble(run, tmp_path)


def test_other_experts_beside_a_shipped_language_model(make_run, unjudged, tmp_path):
    changes = {**BRIEF, "expert": {**BRIEF["expert"], "weak_share": 0, "scenes": 4}}
    run = make_run(pretraining=changes, pretrain="shipped-neutral", model={"word_match": 0})
    pretrain(run, tmp_path, report=Reporter(), shipped=[LANGUAGE])
    card = json.loads((tmp_path / "card.json").read_text())
    shipped, neutral = (json.loads((folder / "card.json").read_text()) for folder in (BUNDLED, NEUTRAL))
    assert card["sha256"][LANGUAGE] == neutral["sha256"][LANGUAGE] != shipped["sha256"][LANGUAGE]
    assert all(card["sha256"][name] != shipped["sha256"][name] for name in COMPACT)
    assert (card["pretraining"]["expert"]["weak_share"], card["pretraining"]["expert"]["scenes"]) == (0, 4)


def test_parts_made_before_there_was_a_choice_of_scenes_are_still_known(make_run):
    usual = make_run(pretraining={"expert": {"weak_share": 0.15, "scenes": 0}})
    assert pretraining.settings_digest(usual, "detection") == pretraining.settings_digest(make_run(), "detection")
    other = make_run(pretraining={"expert": {"scenes": 4}})
    assert pretraining.settings_digest(other, "detection") != pretraining.settings_digest(make_run(), "detection")
    assert set(usual.pretraining.expert.model_dump()) == set(PretrainPart.model_fields)
