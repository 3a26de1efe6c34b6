"""Finds that are not to be trusted: pictures unlike those of training come last, unknown words are named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from astrea.confidence.estimator import ConfidenceEstimator
from astrea.confidence.familiarity import learn_familiar
from astrea.retrieval.doubtful import UNLIKE, doubts_about_text, trusted_first
from astrea.retrieval.rerank import Hit
from astrea.world.experts.truth import pixels_from_scenes
from astrea.world.scenes.draw import split_scene


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    """Two scenes and a page of one colour."""
    folder = tmp_path_factory.mktemp("album")
    for number in range(2):
        Image.fromarray(split_scene("test", number, 0).image).save(folder / f"scene{number}.png")
    Image.new("RGB", (64, 64), "white").save(folder / "page.png")
    return folder


@pytest.fixture
def knowing(tiny_model, monkeypatch):
    """The small model, which knows what scenes look like."""
    scenes = [split_scene("train", number, 0) for number in range(40)]
    with torch.no_grad():
        features = tiny_model.encode_images(pixels_from_scenes(scenes))
    monkeypatch.setattr(
        tiny_model,
        "confidence_estimator",
        ConfidenceEstimator({name: learn_familiar(part) for name, part in features.items()}),
    )
    return tiny_model


def hits(album: Path) -> list[Hit]:
    return [Hit(album / name, score) for name, score in (("page.png", -1.0), ("scene1.png", -2.0), ("gone.png", -3.0))]


def test_strange_pictures_come_last_and_are_told(knowing, album):
    found = trusted_first(knowing, hits(album), 3)
    assert [hit.path.name for hit, _ in found] == ["scene1.png", "page.png", "gone.png"]
    assert [doubt for _, doubt in found[:2]] == [None, UNLIKE]
    assert "gone.png" in str(found[2][1])
    assert trusted_first(knowing, hits(album), 1) == found[:1]


def test_a_model_that_cannot_tell_leaves_the_order(tiny_model, album):
    assert [hit for hit, _ in trusted_first(tiny_model, hits(album)[:2], 2)] == hits(album)[:2]


def test_unknown_words(tiny_processor):
    assert doubts_about_text(tiny_processor, "a red sun.") == ()
    assert doubts_about_text(tiny_processor, "a red giraffe.") == ("I do not know the word 'giraffe'",)


def test_the_command_says_so(astrea, tiny_folder, album):
    result = astrea("retrieve", tiny_folder, album, "a giraffe")
    assert result.code == 0
    assert result.out.splitlines()[-1] == "The best match is not to be trusted: I do not know the word 'giraffe'"
    rows = json.loads(astrea("retrieve", tiny_folder, album, "a giraffe", "--json").out)
    assert [row["doubts"] for row in rows] == [["I do not know the word 'giraffe'"]] * len(rows)
    assert all(os.path.isfile(row["image"]) for row in rows)
    assert "trusted" not in astrea("retrieve", tiny_folder, album, "a red sun.").out
