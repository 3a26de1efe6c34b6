"""The benchmark of unknown kinds of corruption: what is measured was never trained on, and every kind is measured."""

from __future__ import annotations

import json

import pytest

from astrea.experts.corruption_names import GROUPS, KINDS
from benchmark_scripts import benchmark_script


@pytest.fixture(scope="module")
def script():
    return benchmark_script("reliability_kinds")


@pytest.mark.slow
def test_every_kind_is_measured_by_a_head_that_has_not_seen_it(script, tmp_path, capsys):
    out = tmp_path / "results.json"
    words = ["--train", "40", "--test", "6", "--steps", "2", "--batch", "8", "--out", str(out)]
    returned = script.main(words)
    written = json.loads(out.read_text())
    assert written == returned
    assert list(written["trials"]) == ["words", "words_at_once", "today", *GROUPS]
    for group, kinds in GROUPS.items():
        trial = written["trials"][group]
        assert set(trial["kinds"]) == set(kinds)
        assert set(trial["trained_on"]) == set(KINDS) - set(kinds)
    colours = written["trials"]["colour"]["kinds"]["wrong_colour"]["faulty"]
    assert set(colours) == {"captioning", "segmentation"}  # no other names any
    assert f"results: {out}" in capsys.readouterr().out


def test_a_group_is_held_out_whole(script):
    assert set(script.without(GROUPS["another_picture"])).isdisjoint({"swapped", "late", "half_swapped"})
    assert set(script.without(())) == set(KINDS)
