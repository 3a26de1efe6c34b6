"""The benchmark of pictures from outside: what is drawn, what counts as right, and the probe beside it."""

from __future__ import annotations

import json
import random

import pytest
import torch

from benchmark_scripts import benchmark_script


@pytest.fixture(scope="module")
def outside():
    return benchmark_script("outside_data")


def test_kinds_are_those_of_unicodes_list_without_variants(outside, tmp_path, monkeypatch):
    names = tmp_path / "emoji-test.txt"
    names.write_text(
        "# subgroup: animal-bird\n1F414 ; fully-qualified # chicken\n1F426 200D 2B1B ; fully-qualified # black bird\n"
        "1F985 FE0F ; fully-qualified # eagle\n1F986 ; unqualified # duck\n"
        "# subgroup: country-flag\n1F1EB 1F1F7 ; fully-qualified # France\n# subgroup: money\n1F4B0 ; fully-qualified\n"
    )
    monkeypatch.setattr(outside, "NAMES", names)
    assert outside.emoji_of_kinds() == {"bird": ["\U0001f414", "\U0001f985"], "flag": ["\U0001f1eb\U0001f1f7"]}


def test_each_picture_has_two_records_and_no_answer_stands_in_a_question(outside, tmp_path, monkeypatch):
    (tmp_path / "pictures").mkdir()
    monkeypatch.setattr(outside, "picture", lambda emoji, rng: outside.Image.new("RGB", (8, 8)))
    rows = list(outside.rows("bird", ["a", "b"], "train", tmp_path, random.Random(0)))
    assert len(rows) == 2 * 2 * outside.VIEWS
    for row in rows:
        question, answer = (turn["value"] for turn in row["conversations"])
        assert (tmp_path / row["image"]).is_file()
        assert answer == ("bird" if outside.QUESTION in question else "yes" if "bird" in question else "no")


def test_rates_are_of_kinds_and_of_yes_and_no(outside, tmp_path):
    asked = [
        {"question": outside.QUESTION, "truths": ["bird"], "answer": "Bird.", "blind": "tool"},
        {"question": outside.QUESTION, "truths": ["tool"], "answer": "bird", "blind": "tool"},
        {"question": "is it a bug?", "truths": ["no"], "answer": "no", "blind": "yes"},
    ]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked))
    found = outside.named(tmp_path)
    assert found == {"kinds": 50.0, "kinds_blind": 50.0, "yes_no": 100.0, "yes_no_blind": 0.0}


def test_the_probe_names_what_its_features_tell(outside, monkeypatch):
    kinds = torch.arange(len(outside.KINDS)).repeat(6)
    told = torch.nn.functional.one_hot(kinds).float()
    monkeypatch.setattr(outside, "features", lambda *_: (told, kinds))
    assert outside.probe(None, None, None)["kinds"] == 100.0
    monkeypatch.setattr(outside, "features", lambda *_: (torch.ones(len(kinds), 4), kinds))
    assert outside.probe(None, None, None)["kinds"] <= 100 / len(outside.KINDS) + 1e-3
