"""From a recipe back to the words of the command line that make it."""

from __future__ import annotations

import pytest

from astrea.common.errors import AstreaError
from astrea.recipes.changes import changes_from
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Run


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["seed=3", "tune.steps=9000", "tune.lr=0.0003"],
        ["name=mine", 'pretrain="a folder"', "pretraining.gate=0.5"],
        ["experts.captioning=null"],
        ["experts.segmentation.options.threshold=0.05"],
        ['experts.more={"kind": "detection", "options": {}}'],
        ["model.strategy=average", "model.mixer=false"],
        ['tune.train=["adapters", "fusion"]'],
    ],
)
def test_the_changes_are_the_words_that_were_said(words):
    run = load_recipe(Run, "tiny", words)
    said = changes_from("tiny", run)
    assert sorted(said) == sorted(words)
    assert load_recipe(Run, "tiny", said) == run


def test_a_new_mapping_where_there_was_none():
    taught = 'distill={"student": "student", "teachers": {"detection": {"kind": "detection"}}}'
    run = load_recipe(Run, "tiny", [taught, "experts.student.kind=student"])
    assert load_recipe(Run, "tiny", changes_from("tiny", run)) == run


def test_an_order_that_no_words_can_say():
    run = load_recipe(Run, "tiny")
    turned = run.model_copy(update={"experts": dict(reversed(run.experts.items()))})
    with pytest.raises(AstreaError, match="no KEY=VALUE words"):
        changes_from("tiny", turned)
