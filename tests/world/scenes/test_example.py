"""The picture that comes with the package, and folders of pictures with questions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

import astrea as package
from astrea.data.images import load_image
from astrea.model.explanation import explain
from astrea.model.loading import load_model
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.example import EXAMPLE_ANSWERS, INDEX, SEED, SPLIT, example_picture
from command_line import Astrea
from repository import ROOT


def test_the_picture_is_the_scene_it_is_said_to_be():
    assert package.example_picture() == example_picture()
    assert np.array_equal(np.asarray(load_image(example_picture())), split_scene(SPLIT, INDEX, SEED).image)


def test_the_shipped_model_answers_the_questions_about_it():
    model, processor = load_model("shipped")
    told = {q: explain(model, processor, example_picture(), q, masking=False).answer for q in EXAMPLE_ANSWERS}
    assert told == EXAMPLE_ANSWERS


def test_the_first_question_of_the_readme(astrea: Astrea, tmp_path: Path, monkeypatch):
    readme = (ROOT / "README.md").read_text()
    question = next(iter(EXAMPLE_ANSWERS))
    assert f'astrea ask example "{question}"' in readme
    result = astrea("ask", "example", question)
    assert result.code == 0, result.err
    assert result.out.splitlines()[0].startswith(EXAMPLE_ANSWERS[question])
    assert max(map(len, result.out.splitlines())) <= 80
    # A file of that name comes first.
    Image.new("RGB", (64, 64)).save(tmp_path / "example", "PNG")
    monkeypatch.chdir(tmp_path)
    other = json.loads(astrea("ask", "example", question, "--json").out)
    assert other["readings"] != json.loads(astrea("ask", example_picture(), question, "--json").out)["readings"]


def test_scenes_as_single_pictures_with_questions(astrea: Astrea, tmp_path: Path):
    folder = tmp_path / "pictures"
    result = astrea("scenes", "--out", folder, "--count", 4, "--split", "test")
    assert result.code == 0, result.err
    assert str(folder / "questions.jsonl") in result.out
    assert not (tmp_path / "scenes.png").exists()
    for number in range(4):
        drawn = np.asarray(Image.open(folder / f"{number:03}.png"))
        assert np.array_equal(drawn, split_scene("test", number, 0).image)
    rows = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
    assert len(rows) > 4 * 6
    assert {row["image"] for row in rows} == {f"{number:03}.png" for number in range(4)}
    assert astrea("validate", folder / "questions.jsonl").code == 0
