"""Keys that had other names: what is said of them, and what was saved under them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from astrea.common.errors import AstreaError
from astrea.recipes.loader import load_recipe, load_with_origins
from astrea.recipes.recipe import Recipe
from astrea.recipes.renamed import RENAMED, with_new_names, with_old_names


def written(key: str) -> str:
    """A recipe based on tiny that says one dotted key, as YAML."""
    lines = [f"{'  ' * depth}{part}:" for depth, part in enumerate(key.split("."))]
    return "\n".join(["base: tiny", *lines]) + " 1\n"


def dump(*overrides: str) -> dict:
    return load_recipe(Recipe, "tiny", overrides).model_dump(mode="json")


def leaves(data: dict, trail: tuple[str, ...] = ()) -> list[str]:
    found = []
    for key, value in data.items():
        found += leaves(value, (*trail, key)) if isinstance(value, dict) else [".".join((*trail, key))]
    return found


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_key_names_the_new_one_wherever_it_is_written(old: str, new: str, tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(written(old))
    line = len(old.split(".")) + 1
    with pytest.raises(AstreaError) as caught:
        load_recipe(Recipe, str(path))
    assert caught.value.message == f"{path}, line {line}: {old!r} is called {new!r} now"
    assert caught.value.hint == f"Rename {old} to {new}."

    above = tmp_path / "above.yaml"
    above.write_text("base: mine.yaml\n")
    with pytest.raises(AstreaError) as caught:
        load_recipe(Recipe, str(above))
    assert caught.value.message.startswith(f"{path}, line {line}: ")

    with pytest.raises(AstreaError) as caught:
        load_recipe(Recipe, "tiny", [f"{old}=1"])
    assert caught.value.message == f"command line: '{old}=1': {old!r} is called {new!r} now"


def test_a_key_below_an_old_one_is_named_too(tmp_path: Path):
    with pytest.raises(AstreaError) as caught:
        load_recipe(Recipe, "tiny", ["machines.language=fsdp"])
    assert "'machines.language' is called 'runtime.llm' now" in caught.value.message


def test_every_new_name_is_a_key():
    keys = dump()
    for new in RENAMED.values():
        value = keys
        for part in new.split("."):
            value = value[part]


def test_what_was_saved_under_old_names_is_read_with_its_places(tmp_path: Path):
    recipe = load_recipe(Recipe, "tiny", ["regularisation.corruption=0.2", "runtime.llm=fsdp", "tune.llm_lr_scale=0.5"])
    path = tmp_path / "recipe.yaml"
    old = with_old_names(recipe.model_dump(mode="json"))
    assert {"machines", "regular", "language"} < old.keys()
    path.write_text(json.dumps(old, indent=1))
    again, places = load_with_origins(Recipe, str(path), saved=True)
    assert again == recipe
    lines = path.read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if '"lies"' in text)
    assert places.origin(("regularisation", "corruption")) == f"{path}, line {line}"
    with pytest.raises(AstreaError, match=r"is called 'regularisation.corruption' now"):
        load_recipe(Recipe, str(path))


def test_renaming_forth_and_back_changes_nothing():
    data = dump()
    assert with_new_names(with_old_names(data)) == with_new_names(data) == data
    assert with_old_names(with_old_names(data)) == with_old_names(data)
    assert leaves(with_old_names(data)) != leaves(data)


def test_a_saved_recipe_goes_without_what_only_align_reads(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("base: tiny\nfuse: {kind: contrast, progressive: false}\nmachines: {device: cpu}\n")
    loaded = load_recipe(Recipe, str(path), saved=True)
    assert loaded.runtime.device == "cpu"
    with pytest.raises(AstreaError, match="machines"):
        load_recipe(Recipe, str(path))
