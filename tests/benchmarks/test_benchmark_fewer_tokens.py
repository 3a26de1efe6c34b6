"""The benchmark of few tokens against equal shares: it trains, goes on where it was, and compares by items."""

from __future__ import annotations

import json

import pytest

from astrea.world.evaluation.tasks import TASKS
from benchmark_scripts import benchmark_script

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def script():
    return benchmark_script("fewer_tokens")


def told(name: str, seed: int, every: float, fewer: float | None = None) -> dict:
    """A model's file: of four items of each task a share of ``every`` is right, or of ``fewer`` with fewer tokens."""

    def row(part: float) -> dict:
        right = round(4 * part)
        items = dict.fromkeys(TASKS, "1" * right + "0" * (4 - right))
        return {"average": 100 * part, "tasks": dict.fromkeys(TASKS, 100 * part), "items": items}

    more = {} if fewer is None else {"fewer": row(fewer)}
    return {"name": name, "seed": seed, "tokens_share": 1.0 if fewer is None else 0.6, "all": row(every), **more}


def test_differences_are_over_the_seeds_that_both_have(script):
    cells = [
        told("allocator", 0, 0.75),
        told("allocator", 1, 0.5),
        told("astrea", 1, 1.0, 0.5),
        told("astrea", 2, 0, 0),
    ]
    found = script.compared(cells)
    assert set(found["allocator"]) == {"seeds", "tokens_share", "all"}
    assert found["allocator"]["all"]["mean"] == 62.5
    assert found["allocator"]["all"]["minus_equal"]["mean"] == 0
    ours = found["astrea"]
    assert (ours["seeds"], ours["tokens_share"]) == (2, 0.6)
    assert ours["all"]["minus_equal"]["seeds"] == 1
    assert ours["all"]["minus_equal"]["mean"] == pytest.approx(50)
    assert ours["fewer"]["minus_equal"]["mean"] == pytest.approx(0)
    assert ours["fewer"]["tasks"]["area"] == 25


def test_without_equal_shares_there_is_nothing_to_compare_with(script):
    assert "minus_equal" not in script.compared([told("astrea", 0, 1.0, 0.5)])["astrea"]["all"]


def test_it_measures_what_is_missing_and_no_more(script, tmp_path, capsys, monkeypatch):
    out = tmp_path / "few"
    small = ["experts={segmentation: {kind: segmentation}, detection: {kind: detection}}", "data.train_scenes=16"]
    small += ["align.steps=1", "fuse.steps=1", "tune.steps=1", "align.batch=4", "fuse.batch=2", "tune.batch=2"]
    small += ["data.test_questions=2", "data.test_captions=2", "data.test_retrieval_groups=1"]
    options = ["--seeds", "3", "--names", "allocator", "astrea", "--out", str(out), *small]
    returned = script.main(options)
    assert returned == json.loads((tmp_path / "few.json").read_text())
    assert sorted(file.name for file in out.iterdir()) == ["allocator-3.json", "astrea-3.json"]
    ours = returned["contestants"]["astrea"]
    assert ours["tokens_share"] <= 0.6
    assert ours["fewer"]["minus_equal"]["low"] <= ours["fewer"]["minus_equal"]["mean"]
    assert "fewer" not in returned["contestants"]["allocator"]
    assert returned["items"]["counting"] == 2
    assert "results:" in capsys.readouterr().out

    def never(*_):
        raise AssertionError("this model has been measured already")

    monkeypatch.setattr(script, "measure", never)
    assert script.main(options)["contestants"] == returned["contestants"]
    with pytest.raises(AssertionError, match="measured already"):
        script.main([*options, "tune.steps=2"])
