"""benchmarks/photo_models.py asks about compositions that the test does not show."""

from __future__ import annotations

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
