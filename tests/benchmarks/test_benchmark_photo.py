"""The benchmark of photographs: variants take as many seconds as the first, and figures stand where readers look."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from astrea.recipes.loader import dump_recipe, load_recipe
from astrea.recipes.recipe import Recipe
from benchmark_scripts import benchmark_script


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A run that took 30 s to align, 10 s for 10 steps of fuse, and 2 s for each of 100 steps of tune."""
    recipe = load_recipe(Recipe, "photo", ["align.steps=60", "fuse.steps=10", "tune.steps=100"])
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    seconds = {"features": 99.0, "align": 30.0, "fuse": 10.0, "tune": 200.0}
    (tmp_path / "seconds.json").write_text(json.dumps(seconds))
    return tmp_path


@pytest.mark.parametrize(("variant", "align", "fuse", "tune"), [("unaligned", 0, 10, 115), ("written", 0, 0, 120)])
def test_what_others_do_not_spend_on_alignment_they_spend_on_tuning(first, variant, align, fuse, tune):
    changes = ["fuse.steps=10", "tune.steps=100"]
    recipe = benchmark_script("photo").recipe_of(variant, changes, first)
    assert (recipe.align.steps, recipe.fuse.steps, recipe.tune.steps) == (align, fuse, tune)
    assert recipe.model.findings == ("written" if variant == "written" else "phrases")


def test_the_summary_names_each_variants_figure():
    figures = {
        name: {"average": number, "blind_average": 9.0, "new_things": {"name": number}, "tasks": {}}
        for number, name in enumerate(("photo", "unaligned", "written"), 1)
    }
    results = {"variants": figures}
    benchmark_script("photo").summary(results)
    assert (results["average"], results["unaligned_average"], results["written_average"]) == (1, 2, 3)
    assert results["new_things"] == {"name": 1}


def test_processes_that_share_the_seeds_keep_each_others_figures(tmp_path):
    keep, file = benchmark_script("photo").keep, tmp_path / "results.json"
    keep(file, 0, "photo", {"average": 1.0}, {"split": "validation"})
    keep(file, 1, "photo", {"average": 2.0}, {"split": "validation"})
    keep(file, 0, "unaligned", {"average": 3.0}, {"split": "validation"})
    kept = json.loads(file.read_text())
    assert kept["seeds"] == {
        "0": {"photo": {"average": 1.0}, "unaligned": {"average": 3.0}},
        "1": {"photo": {"average": 2.0}},
    }
    assert (kept["split"], "variants" in kept) == ("validation", False)


def test_what_the_run_has_been_asked_already_is_taken_from_its_report(first, monkeypatch):
    script = benchmark_script("photo")
    tasks = {name: {"score": 50.0, "blind": 20.0} for name in script.TASKS}
    figures = {"average": 50.0, "blind_average": 20.0, "naming": {}, "new_things": {}, "templates": {}}
    (first / "results.json").write_text(json.dumps({**figures, "tasks": tasks}))
    (first / "language.json").write_text("{}")
    trained = load_recipe(Recipe, str(first / "recipe.yaml"))
    found = script.measured(first, trained, "test")
    assert (found["vqa_average"], found["seconds"]["tune"]) == (50.0, 200.0)

    def asked(folder: Path) -> None:
        raise LookupError(folder)

    monkeypatch.setattr(script, "load_model", asked)
    more = load_recipe(Recipe, str(first / "recipe.yaml"), ["data.test_questions=70"])
    for recipe, split in ((trained, "validation"), (more, "test")):
        with pytest.raises(LookupError):
            script.measured(first, recipe, split)
