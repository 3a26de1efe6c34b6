"""The arena starts from the neutral language model; runs from the one that was warmed up are told apart."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

from astrea.lab.arena.arena import Arena, current
from astrea.lab.arena.sealed import TestSet
from astrea.model.components import NEUTRAL
from repository import BENCHMARKS

RESULTS = BENCHMARKS / "results"
CELL = "strategy-astrea-0.json"


def test_its_command_starts_from_the_neutral_one_unless_somebody_says_otherwise(command, pretended, tmp_path):
    def made(*words: str) -> tuple[str, str, str]:
        code, output = command("--strategies", "astrea", "--seeds", 1, "--out", tmp_path, *words)
        assert code == 0, output
        found = json.loads((tmp_path / "arena.json").read_text())
        assert "shipped" in (tmp_path / "arena.html").read_text()
        return found["recipe"], found["pretrain"], json.loads((tmp_path / "cells" / CELL).read_text())["digest"]

    neutral, warmed, again = made(), made("--recipe", "tiny"), made()
    assert neutral[:2] == ("neutral", "shipped-neutral")
    assert warmed[:2] == ("tiny", "shipped")
    assert neutral == again
    assert neutral[2] != warmed[2]


def taken_up(recipe: str, words: list[str], folder: Path, said, split: str = "test") -> set[str]:
    """The runs of a folder that an arena takes for its own."""
    arena = Arena(recipe, tuple(words), "all", 1, folder, 1, False, "", test=TestSet(split))
    return {f"{run['kind']}-{run['name']}-{run['seed']}" for run in current(arena, arena.variants(), report=said)}


def overrides(result: Path) -> list[str]:
    """The overrides of the command that a result file names."""
    words = shlex.split(json.loads(result.read_text())["command"])
    return [word for word in words if "=" in word and not word.startswith("--")]


def test_the_committed_runs_of_the_neutral_one_are_those_of_the_shipped_bytes(said):
    folder = RESULTS / "arena-neutral"
    named = {path.stem for path in (folder / "validation").glob("*.json")}
    words = overrides(folder / "validation.json")
    assert {"pretrain=runs/neutral", "model.word_match=0"} <= set(words)
    plain = [word for word in words if not word.startswith(("pretrain=", "model."))]
    assert taken_up("neutral", plain, folder, said, "validation") == named
    # As they were made: from a folder of the same parts.
    shipped = ["model.word_match=0", f"pretrain={NEUTRAL}", *plain]
    assert taken_up("tiny", shipped, folder, said, "validation") == named
    assert taken_up("tiny", plain, folder, said, "validation") == set()


def test_the_committed_runs_of_the_warmed_one_belong_to_tiny_alone(said, tmp_path):
    folder = RESULTS / "arena"
    (tmp_path / "cells").mkdir()
    stems = {"strategy-astrea-0", "ablation-word_match-0", "pair-pair_captioning_detection-0"}
    for stem in stems:
        shutil.copy(folder / "cells" / f"{stem}.json", tmp_path / "cells" / f"{stem}.json")
    words = overrides(folder / "arena.json")
    assert json.loads((folder / "arena.json").read_text())["recipe"] == "tiny"
    assert taken_up("tiny", words, tmp_path, said) == stems
    assert taken_up("neutral", words, tmp_path, said) == set()
