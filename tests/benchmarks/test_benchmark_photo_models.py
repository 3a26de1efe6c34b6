"""benchmarks/photo_models.py asks about compositions that the test does not show."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmark_scripts import benchmark_script

script = benchmark_script("photo_models")


@pytest.mark.parametrize(("kind", "split"), [("known", "validation"), ("new", "new")])
def test_questions_are_about_compositions_of_their_own(kind, split, monkeypatch):
    known, new = (SimpleNamespace(tasks=(name,)) for name in ("known", "new"))
    made = SimpleNamespace(
        questions=known,
        new_questions=new,
        scenes=None,
        scene=lambda split, number: (split, number),
        swapped=None,
        references=None,
        planner=SimpleNamespace(seed=7),
    )

    def drawn(source, split, count, *, seed):
        return list(source.scenes(split, count)), [seed]

    monkeypatch.setattr(script, "asked_about", drawn)
    sets, tasks = script.questions_about(made, kind, 2)
    assert sets.scenes == [(split, 50_000), (split, 50_001)]
    assert tasks == (kind,)


def test_models_that_were_asked_as_much_before_stay_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    first = script.together(file, 60, {"old": {"average": 1.0}})
    file.write_text(json.dumps(first))
    second = script.together(file, 60, {"new": {"average": 2.0}})
    assert {name: of["average"] for name, of in second["models"].items()} == {"old": 1.0, "new": 2.0}
    assert all(of["commit"] for of in second["models"].values())
    assert list(script.together(file, 30, {"new": {"average": 3.0}})["models"]) == ["new"]
