"""Recipes on top of others, and that what is written out reads back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from astrea.common.errors import AstreaError
from astrea.recipes.loader import dump_recipe, load_recipe
from astrea.recipes.recipe import Recipe

TINY = load_recipe(Recipe, "tiny")


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "mine.yaml") -> str:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def refusal(path: str) -> AstreaError:
    with pytest.raises(AstreaError) as caught:
        load_recipe(Recipe, path)
    return caught.value


def test_what_is_not_said_is_as_in_the_base(write):
    recipe = load_recipe(Recipe, write("base: tiny\nseed: 3\ntune: {steps: 7, losses: {itc: 0.5}}\n"))
    assert recipe.name == "mine"
    losses = TINY.tune.losses.model_copy(update={"itc": 0.5})
    wanted = {"name": "mine", "seed": 3, "tune": TINY.tune.model_copy(update={"steps": 7, "losses": losses})}
    assert recipe == TINY.model_copy(update=wanted)
    assert load_recipe(Recipe, write("base: tiny\nname: other\n")).name == "other"


def test_parts_are_added_changed_replaced_and_taken_out_in_their_order(write):
    path = write(
        "base: tiny\nexperts:\n  captioning: null\n  segmentation: {frozen: true}\n"
        "  classification: {kind: detection, options: {a: 1}}\n  mine: {kind: 'm:C'}\n"
    )
    experts = load_recipe(Recipe, path).experts
    assert list(experts) == ["classification", "segmentation", "detection", "mine"]
    assert (experts["segmentation"].kind, experts["segmentation"].frozen) == ("segmentation", True)
    above = write("base: mine.yaml\nexperts:\n  classification: {options: {b: 2}}\n", "above.yaml")
    # Options are plain data of a constructor: as a whole.
    assert load_recipe(Recipe, above).experts["classification"].options == {"b": 2}
    assert "experts.nobody' in the base" in refusal(write("base: tiny\nexperts: {nobody: null}\n")).message


def test_a_base_is_found_beside_the_file_that_names_it(write, tmp_path, monkeypatch):
    write("base: tiny\nseed: 1\n", "shared/common.yaml")
    path = write("base: ../shared/common.yaml\ntune: {steps: 1}\n", "runs/mine.yaml")
    monkeypatch.chdir("/")
    recipe = load_recipe(Recipe, path, ["fuse.steps=2"])
    assert (recipe.seed, recipe.tune.steps, recipe.fuse.steps) == (1, 1, 2)


def test_mistakes_name_the_file_and_line_that_made_them(write, tmp_path):
    write("base: tiny\nseed: 1\ntune:\n  stepz: 2\n", "common.yaml")
    path = write("base: common.yaml\nfuse: {steps: many}\n")
    said = refusal(path).message
    assert f"{tmp_path / 'common.yaml'}, line 4: 'tune.stepz'" in said
    assert f"{path}, line 2: 'fuse.steps'" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: tinny\n", "line 1: 'base': |'tiny'"),
        ("seed: 1\nbase: [tiny]\n", "line 2: 'base' is [\"tiny\"], not a recipe"),
        ("base: /etc/passwd\n", "relative to this file"),
        ("base: C:\\other.yaml\n", "relative to this file"),
        ("base: mine.yaml\n", "leads back to"),
        ("base: ./loop.yaml\n", "leads back to"),
        ("base: deep0.yaml\n", "more than 8 recipes"),
        ("base: pipe\n", "'base': "),
        (f"base: {'x' * 300}\n", "'base': "),
        ("base: tiny\nexperts: 3\n", "line 2: 'experts': expected a mapping"),
    ],
)
def test_a_base_that_is_none(write, tmp_path, text, said):
    write("base: mine.yaml\n", "loop.yaml")
    for number in range(9):
        write(f"base: deep{number + 1}.yaml\n", f"deep{number}.yaml")
    os.mkfifo(tmp_path / "pipe")
    error = refusal(write(text))
    for words in said.split("|"):
        assert words in f"{error}"


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
options = st.dictionaries(st.text(max_size=8), plain, max_size=3)
changes: Any = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text(max_size=8) | st.sampled_from(["on", "1e-3", "~", "\x85", "a: b"]),
        "pretrain": st.text(max_size=8),
        "model": st.builds(lambda given: {"strategy": "m:C", "options": given}, options),
        "data": st.builds(
            lambda paths, weight: {"train": [*paths, {"path": "x", "weight": weight}]},
            st.lists(st.text(max_size=8), max_size=3),
            st.floats(min_value=1e-300, max_value=1e6),
        ),
        "experts": st.builds(
            lambda kind, given, described: {"one": {"kind": kind, "options": given, "architecture": described}},
            st.text(max_size=8),
            options,
            st.none() | options,
        ),
        "llm": st.builds(lambda alpha: {"low_rank": {"alpha": alpha}}, st.floats(min_value=1e-9, max_value=1e6)),
    },
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=changes)
@example(change={"experts": {"one": {"kind": "x", "options": {"k" * 2000: {"<<": "?"}, "y": float("inf")}}}})
def test_a_run_that_is_written_out_reads_back_the_same(write, change):
    recipe = Recipe.model_validate(TINY.model_dump(mode="json") | change)
    again = load_recipe(Recipe, write(dump_recipe(recipe)))
    # As text, as equal mappings may differ in order, and their numbers in kind.
    assert json.dumps(again.model_dump(mode="json")) == json.dumps(recipe.model_dump(mode="json"))


@pytest.mark.parametrize(
    "text",
    [
        f"options: {{big: 0x{'f' * 331}}}",  # 399 decimal digits or fewer
        f"options: {{big: -{'9' * 398}}}",
        "options: {deep: " + "[" * 55 + "]" * 55 + "}",
    ],
)
def test_what_can_be_read_can_be_written_and_read_again(write, text):
    recipe = load_recipe(Recipe, write(f"base: tiny\nexperts: {{one: {{kind: x, {text}}}}}\n"))
    assert load_recipe(Recipe, write(dump_recipe(recipe))) == recipe


@pytest.mark.parametrize(
    "text",
    [
        f"options: {{big: 0x{'f' * 390}}}",
        "options: {deep: " + "[" * 62 + "]" * 62 + "}",
    ],
)
def test_what_could_not_be_read_again_is_refused_at_first(write, text):
    assert "mine.yaml" in refusal(write(f"base: tiny\nexperts: {{one: {{kind: x, {text}}}}}\n")).message


def test_a_recipe_too_large_to_be_written_out_is_told(write):
    data = TINY.data.model_copy(update={"train": ("x",) * 9_850})
    with pytest.raises(AstreaError, match="more than 10,000 values"):
        dump_recipe(TINY.model_copy(update={"data": data}))
    with pytest.raises(AstreaError, match="larger than 1024 KiB"):
        dump_recipe(TINY.model_copy(update={"name": "x" * (1 << 20)}))
    depth = ".".join("x" * 60)
    with pytest.raises(AstreaError, match="nested deeper"):
        load_recipe(Recipe, "tiny", [f"model.options.{depth}.a.b.c=1"])
