"""A whole arena of two variants, interrupted after one run and continued, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from astrea.common.progress import Reporter
from astrea.lab.arena.arena import Arena, current, run_arena
from astrea.lab.arena.variants import variants
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.world.evaluation.tasks import TASKS


@pytest.fixture(scope="module")
def folder(base, tmp_path_factory) -> Path:
    """Where an arena was interrupted after its first cell."""
    folder = tmp_path_factory.mktemp("arena")

    class Impatient(Reporter):
        def track(self, label: str, done: int, total: int, note: str = "") -> None:
            if label == "arena" and done == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_arena(Arena("tiny", base, "average,sequence_concat", 1, folder, 1, False, ""), report=Impatient())
    assert [path.name for path in (folder / "cells").iterdir()] == ["strategy-average-0.json"]
    assert not (folder / "arena.json").exists()
    return folder


@pytest.mark.slow
def test_an_interrupted_arena_goes_on_with_the_same_command(folder, base, command, said):
    first = folder / "cells" / "strategy-average-0.json"
    before = first.read_bytes()
    asked = ("--strategies", "average,sequence_concat", "--recipe", "tiny", "--seeds", 1, "--processes", 1)
    asked = (*asked, "--out", folder, *base)
    code, output = command(*asked)
    assert code == 0, output
    assert "1 of 2 runs are there already" in output
    assert "sequence_concat" in output
    assert first.read_bytes() == before
    made = json.loads((folder / "arena.json").read_text())
    assert set(made["strategies"]) == {"average", "sequence_concat"}
    assert made["command"].startswith("astrea arena --strategies average,sequence_concat --recipe tiny")
    assert set(made["strategies"]["average"]["tasks"]) == set(TASKS)
    assert made["curves"]["sequence_concat"]["0"]  # the last step of tune is always a point
    assert made["strategies"]["average"]["difference"] is None  # there is no astrea to differ from

    # Cells of other settings are never mixed in: with another base recipe, the same folder holds none.
    other = Arena("tiny", (*base, "tune.steps=9"), "all", 1, folder, 1, False, "")
    assert current(other, variants(load_recipe(Recipe, "tiny", other.overrides)), report=said) == []
    assert len([line for line in said.lines if "left out" in line]) == 2


def test_a_failing_variant_ends_with_status_1_and_its_own_words(tmp_path, base, command):
    wrong = (*base, "pretrain=nowhere")
    code, output = command("--strategies", "average", "--seeds", 1, "--out", tmp_path / "x", *wrong)
    assert code == 1
    assert "strategy-average-0" in output
    assert "nowhere" in output
    assert "same command" in output


def test_bad_requests_are_told_before_anything_runs(tmp_path, command):
    code, output = command("--strategies", "avrage", "--out", tmp_path / "a")
    assert (code, "did you mean 'average'" in output) == (1, True)
    code, output = command("--out", tmp_path / "a", "tune.step=1")
    assert (code, "tune.steps" in output) == (1, True)
    assert not (tmp_path / "a").exists()


def test_the_second_phase_gives_the_others_astreas_time(pretended, tmp_path):
    asked = Arena("tiny", ("seed=4",), "astrea,average,switch", 2, tmp_path, 1, True, "")
    made, failed = run_arena(asked, report=Reporter())
    assert failed == {}
    assert set(made["equal_wall"]) == {"average", "switch"}
    assert made["equal_wall"]["average"]["average"]["seeds"] == 2
    assert set(made["strategies"]["average"]["values"]) == {"4", "5"}  # seeds count from the recipe's own
    kept = json.loads((tmp_path / "cells" / "wall-average-4.json").read_text())
    assert kept["overrides"][-1] == "tune.steps=40"  # 20 steps took 40 s, and 40 s more are left


def test_a_second_phase_without_astrea_is_told_and_the_rest_is_kept(pretended, tmp_path):
    made, failed = run_arena(Arena("tiny", (), "average", 1, tmp_path, 1, True, ""), report=Reporter())
    assert "needs finished runs of astrea" in failed["wall"]
    assert set(made["strategies"]) == {"average"}
