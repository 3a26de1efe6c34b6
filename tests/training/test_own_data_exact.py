"""Runs on one's own files are exact: killed and continued, on several processes, from shards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_distributed import rows, state

import many_processes
from astrea.common.errors import AstreaError
from astrea.common.progress import Reporter
from astrea.data.streaming import FileDataset
from astrea.recipes.loader import dump_recipe, load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.stopping import Interrupted
from astrea.training.trainer import train
from many_processes import STOPPED
from own_files import drawn, llava_row, mixed_rows, save_pictures, write_jsonl, write_shards

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")

SHORT = (
    *("align.progressive=false", "align.steps=2", "fuse.steps=2", "tune.steps=3", "fuse.accumulate=2"),
    *("contrast.queue=16",),
    *("regularisation.expert_dropout=0.5", "regularisation.corruption=0.3", "data.row_tokens=220"),
    *(f"{stage}.{key}" for stage in ("align", "fuse", "tune") for key in ("batch=8", "save_every=1")),
)
STEPS = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of every kind; shards of them; and text alone, so that some processes have no picture and others do."""
    folder = tmp_path_factory.mktemp("own")
    scenes = drawn(8)
    kinds = mixed_rows(scenes, save_pictures(scenes, folder))
    write_jsonl(folder / "train.jsonl", kinds)
    write_jsonl(folder / "text.jsonl", [llava_row(f"t-{n}", [], [("is the sun red?", "no")]) for n in range(60)])
    write_shards(folder, kinds, 3)
    return folder


@pytest.fixture(scope="module")
def recipes(small_overrides: list[str], folder: Path) -> dict[str, Path]:
    """The same run on the JSONL with much text beside it, and on the shards; and by another strategy."""
    files = {
        "jsonl": f"data.train=[{folder / 'train.jsonl'}, {folder / 'text.jsonl'}]",
        "shards": f"data.train={folder / 'shard-*.tar'}",
    }
    made = {}
    for name, own in {
        **{k: [v] for k, v in files.items()},
        "switch": [files["jsonl"], "model.strategy=routed", "model.options={policy: top_k, k: 1}"],
    }.items():
        made[name] = folder / f"{name}.yaml"
        made[name].write_text(dump_recipe(load_recipe(Recipe, "tiny", [*small_overrides, *SHORT], then=own)))
    return made


# Killed and stopped


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(recipes: dict[str, Path], runs: Path) -> Callable[[str], Path]:
    """The uninterrupted run of a recipe, made once."""

    def run(name: str) -> Path:
        if not (runs / name).exists():
            train(load_recipe(Recipe, str(recipes[name])), runs / name, report=Reporter())
        return runs / name

    return run


def same_bits(one: Path, other: Path) -> None:
    mine, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (one, other))
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert (one / "train.jsonl").read_bytes() == (other / "train.jsonl").read_bytes()


@pytest.mark.parametrize(("kind", "draws"), [("jsonl", 8), ("shards", 6)])
def test_a_signal_while_a_batch_is_made_loses_nothing(kind, draws, recipes, runs, whole, monkeypatch):
    """The signal comes in the thread that makes batches, two of them ahead of the step."""
    draw, taken = FileDataset.draw, []

    def signalling(self: FileDataset, *args: Any, **kwargs: Any) -> Any:
        taken.append(1)
        if len(taken) == draws:
            os.kill(os.getpid(), signal.SIGINT)
        return draw(self, *args, **kwargs)

    recipe, out = load_recipe(Recipe, str(recipes[kind])), runs / f"stopped {kind} {draws}"
    with monkeypatch.context() as patch:
        patch.setattr(FileDataset, "draw", signalling)
        with pytest.raises(Interrupted):
            train(recipe, out, report=Reporter())
    assert 0 < len(rows(out)) < STEPS
    train(recipe, out, resume=True, report=Reporter())
    same_bits(out, whole(kind))


def test_a_run_that_a_broken_picture_ended_goes_on_once_it_is_mended(recipes, folder, runs, whole):
    recipe, out = load_recipe(Recipe, str(recipes["jsonl"])), runs / "mended"
    for picture in (folder / "p").glob("0000[1-7].png"):
        picture.rename(picture.with_suffix(".kept"))
        picture.write_bytes(picture.with_suffix(".kept").read_bytes()[:600])
    try:
        with pytest.raises(AstreaError, match=r"train\.jsonl:\d+ [a-z]+-\d: picture 'p/0000\d\.png' is damaged"):
            train(recipe, out, report=Reporter())
    finally:
        for kept in (folder / "p").glob("*.kept"):
            kept.rename(kept.with_suffix(".png"))
    train(recipe, out, resume=True, report=Reporter())
    same_bits(out, whole("jsonl"))


# Several processes


def alike(one: Path, other: Path) -> None:
    """The same steps with the same figures, and the same state, to the rounding of float32."""
    for mine, theirs in zip(rows(one), rows(other), strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            wanted = pytest.approx(value, rel=1e-4, abs=1e-6) if isinstance(value, float) else value
            assert theirs[name] == wanted, (mine["step"], name)
    a, b = state(one), state(other)
    assert a.keys() == b.keys()
    assert torch.equal(a["queue.ids"], b["queue.ids"])  # the same samples in the same order
    assert torch.equal(a["strategy.seen"], b["strategy.seen"])
    # Adam makes a step of full length out of a gradient that is nothing but rounding; such weights are few.
    off = {name: (a[name].double() - b[name].double()).abs() for name in a}
    assert sum(int((o > 2e-5).sum()) for o in off.values()) < 1e-3 * sum(o.numel() for o in off.values())
    measured = ("queue.", "contribution.", "words.")
    held = {name: o for name, o in off.items() if name.startswith(measured) or "load_bias" in name}
    assert {name for name, o in held.items() if o.numel() and o.max() > 2e-4} == set()


JOBS: dict[str, dict[str, Any]] = {
    "two": {"world": 2},
    "four": {"world": 4, "at": 5, "rank": 2, "signal": signal.SIGTERM},
    "four, then two": {"world": 2, "resume": True, "folder": "four"},
    "killed": {"world": 2, "restarts": 1, "at": 6, "rank": 1, "signal": signal.SIGKILL},
    "sharded": {"world": 2, "overrides": ["runtime.llm=fsdp"]},
    "shards two": {"world": 2, "recipe": "shards"},
    "switch one": {"world": 1, "recipe": "switch", "overrides": ["align.steps=0"]},
    "switch two": {"world": 2, "recipe": "switch", "overrides": ["align.steps=0"]},
}


@pytest.fixture(scope="module")
def ends(recipes: dict[str, Path], runs: Path, whole: Callable[[str], Path]) -> dict[str, list[int]]:
    """How the processes of every job ended. What experts see has been kept before: by which pictures share a batch its
    last bits differ, and these are shared out otherwise after a kill."""
    for name in ("jsonl", "shards"):
        whole(name)
    jobs = {
        name: {"folder": name, **job, "recipe": str(recipes[job.get("recipe", "jsonl")])} for name, job in JOBS.items()
    }
    for job in jobs.values():
        job["folder"] = str(runs / job["folder"])
    (runs / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run(
        [sys.executable, many_processes.__file__, str(runs / "jobs.json")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_two_processes_are_one_with_text_among_the_rows(ends, runs, whole):
    assert ends["two"] == [0, 0]
    alike(whole("jsonl"), runs / "two")


@pytest.mark.slow
def test_four_processes_stop_and_two_go_on_in_the_same_order(ends, runs, whole):
    assert ends["four"] == [STOPPED] * 4
    assert ends["four, then two"] == [0, 0]
    alike(whole("jsonl"), runs / "four")


@pytest.mark.slow
def test_after_a_kill_the_end_is_the_same_bits(ends, runs):
    assert ends["killed"] == [0, 0]
    same_bits(runs / "killed", runs / "two")


@pytest.mark.slow
def test_a_sharded_language_model_waits_for_nobody(ends, runs, whole):
    assert ends["sharded"] == [0, 0]
    alike(whole("jsonl"), runs / "sharded")


@pytest.mark.slow
def test_shards_are_read_alike_by_two(ends, runs, whole):
    assert ends["shards two"] == [0, 0]
    alike(whole("shards"), runs / "shards two")


@pytest.mark.slow
def test_processes_without_pictures_name_the_figures_of_the_others(ends, runs):
    """Each process balances by itself, so the balancing loss and what follows from it differ; nothing hangs."""
    assert ends["switch one"] + ends["switch two"] == [0, 0, 0]
    one, two = rows(runs / "switch one"), rows(runs / "switch two")
    assert one[0]["lm"] == pytest.approx(two[0]["lm"], rel=1e-4)
    assert all("auxiliary" in row for row in two)
    assert [row.keys() for row in one] == [row.keys() for row in two]
