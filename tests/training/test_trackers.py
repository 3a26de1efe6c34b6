"""Trackers get every figure of a run, and a run that goes on is the same run there.

Each is an extra: one that is not installed is told of before the work begins, and its own test is left out."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import pytest

from astrea.common.errors import AstreaError
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.extras import require_extras
from astrea.training.identity import config_hash
from astrea.training.log import TrainLog
from astrea.training.trackers import TRACKERS, run_id


def logged(folder: Path, tracker: str) -> None:
    """Three steps; cut off after the second and gone on with."""
    with TrainLog(folder, [tracker], "mine", {"seed": 1}) as log:
        log.write(1, {"stage": "fuse", "loss": 3.0})
        log.write(2, {"stage": "fuse", "loss": 2.0})
    with TrainLog(folder, [tracker], "mine", {"seed": 1}) as log:
        log.truncate_after(2)
        log.write(3, {"stage": "tune", "loss": 1.0})
    assert [json.loads(line)["loss"] for line in (folder / "train.jsonl").read_text().splitlines()] == [3, 2, 1]


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_tracker_that_is_not_installed_is_told_of_before_the_work(tracker, monkeypatch):
    monkeypatch.setitem(sys.modules, tracker, None)
    recipe = load_recipe(Recipe, "tiny", [f"runtime.tracker=[jsonl, {tracker}]"])
    with pytest.raises(AstreaError, match=tracker) as caught:
        require_extras(recipe)
    assert f'[{tracker}]"' in caught.value.hint


def test_an_unknown_tracker_is_refused():
    with pytest.raises(AstreaError, match=r"runtime\.tracker"):
        load_recipe(Recipe, "tiny", ["runtime.tracker=[mlflow]"])


def test_where_figures_go_is_no_part_of_what_a_run_is():
    plain = load_recipe(Recipe, "tiny")
    assert plain.runtime.tracker == ("jsonl",)
    assert config_hash(plain) == config_hash(load_recipe(Recipe, "tiny", ["runtime.tracker=[wandb, trackio]"]))


def test_a_run_that_goes_on_keeps_its_id_and_another_folder_has_another(tmp_path):
    assert run_id(tmp_path / "a") == run_id(tmp_path / "b" / ".." / "a") != run_id(tmp_path / "b")


def test_tensorboard_reads_the_figures_back(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged(tmp_path, "tensorboard")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_wandb_offline_keeps_the_figures_beside_the_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logged(tmp_path, "wandb")
    files = sorted((tmp_path / "wandb").glob(f"offline-run-*-{run_id(tmp_path)}/run-*.wandb"))
    assert len(files) == 2  # one for each time the run was at work, under the same id
    assert all(b"loss" in file.read_bytes() for file in files)


def test_trackio_reads_the_figures_back(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio")
    logged(tmp_path / "run", "trackio")
    (run,) = trackio.Api().runs("astrea")
    assert run.name == f"mine-{run_id(tmp_path / 'run')}"
    (kept,) = (tmp_path / "trackio").glob("astrea*.db")
    with sqlite3.connect(kept) as database:
        rows = [json.loads(row) for (row,) in database.execute("SELECT metrics FROM metrics ORDER BY step")]
    assert [row["loss"] for row in rows if "loss" in row] == [3.0, 2.0, 1.0]
