"""The committed runs of the arena were made by earlier versions: the command beside them takes up every one."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from astrea.lab.arena.arena import Arena, current, of_one_kind, run_arena, stem
from astrea.lab.arena.first_runs import as_first_written
from astrea.lab.arena.pool import Pool
from astrea.lab.arena.sealed import TestSet
from astrea.lab.arena.variants import TUNED, strategies
from repository import BENCHMARKS

RESULTS = BENCHMARKS / "results"
FEW = ("strategy-average-0", "strategy-channel_concat_aligned-1", "trial-switch@4-0", "wall-sequence_concat-1")
SEEDED = "strategy-astrea-1"


def arena_of(name: str, folder: Path, *more: str) -> Arena:
    """What the command of a committed arena asks for, in another folder and with more overrides."""
    command = json.loads((RESULTS / name / "arena.json").read_text())["command"]
    words = shlex.split(command)
    overrides = [word for word in words if "=" in word]
    wanted, seeds = (words[words.index(option) + 1] for option in ("--strategies", "--seeds"))
    return Arena("tiny", (*overrides, *more), wanted, int(seeds), folder, 1, False, command)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with some of the committed runs."""
    folder = tmp_path_factory.mktemp("few")
    (folder / "cells").mkdir()
    for name in (*FEW, SEEDED):
        shutil.copy(RESULTS / "arena" / "cells" / f"{name}.json", folder / "cells")
    return folder


def test_runs_of_every_kind_and_seed_are_taken_up(few, said):
    arena = arena_of("arena", few)
    everyone = arena.variants()
    assert {stem(run) for run in current(arena, everyone, report=said)} == {*FEW, SEEDED}
    assert said.lines == []
    average = next(each for each in everyone if each.name == "average")
    missing = Pool(few, 1, said).missing([arena.run(average, seed) for seed in (0, 1)])
    assert [run.stem for run in missing] == ["strategy-average-1"]  # the other is there


def test_those_of_another_recipe_variant_or_test_set_are_not(few):
    arena = arena_of("arena", few)
    average = next(each for each in strategies(arena.base()) if each.name == "average")
    average = replace(average, overrides=(*average.overrides, *TUNED["average"]))
    known = json.loads((few / "cells" / "strategy-average-0.json").read_text())["digest"]
    assert known in arena.run(average, 0).digests()
    others = [
        *(arena_of("arena", few, change).run(average, 0) for change in ("tune.batch=8", "world.seed=5")),
        arena.run(replace(average, overrides=(*average.overrides, "tune.lr=0.003")), 0),
        arena.run(average, 1),
        replace(arena, test=TestSet("validation")).run(average, 0),
    ]
    for other in others:
        assert known not in other.digests()


def test_further_seeds_with_other_training_pictures_are_left_out_beside_them(make_record, said):
    first, shared, own = (make_record("mova", seed=seed) for seed in (0, 1, 2))
    assert of_one_kind([(first, True), (own, False)], 0, said) == [first, own]
    assert said.lines == []
    assert of_one_kind([(first, True), (shared, True), (own, False)], 0, said) == [first, shared]
    assert len(said.lines) == 1
    assert said.lines[0].startswith("strategy-mova-2.json has training pictures of its own seed")


def test_astreas_recipes_are_written_as_they_were():
    assert as_first_written({"name": "tiny", "tune": {"steps": 3}}) == {"name": "tiny", "tune": {"steps": 3}}


def same(committed: Any, again: Any) -> Any:
    """What is collected again, reduced to what a committed file says; its intervals were others, over items alone."""
    if isinstance(committed, dict):
        kept = {key: same(value, again[key]) for key, value in committed.items() if key not in ("low", "high")}
        return kept | {key: committed[key] for key in ("low", "high") if key in committed and key in again}
    return pytest.approx(again) if isinstance(again, float) else again


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arena", "arena-long"])
def test_the_documented_command_collects_the_committed_tables_and_runs_nothing(name, said, monkeypatch, tmp_path):
    shutil.copytree(RESULTS / name / "cells", tmp_path / "cells")
    committed = json.loads((RESULTS / name / "arena.json").read_text())
    monkeypatch.setattr(Pool, "start", lambda pool, run, work: pytest.fail(f"{run.stem} is run again"))
    made, failed = run_arena(arena_of(name, tmp_path), report=said)
    assert failed == {}
    assert not [line for line in said.lines if "left out" in line or "again" in line]
    assert committed == same(committed, made)
