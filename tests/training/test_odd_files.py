"""Pipes, folders and links in the place of files that a run reads: no waiting, and told."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.common.files import sha256_file
from astrea.data.feature_cache import FeatureCache, fingerprint
from astrea.evaluation.evaluate import results_of
from astrea.lab.arena.collect import read_run
from astrea.model.components import read_card
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.recipes.saved import read_recipe
from astrea.report.load import read_run as read_report
from astrea.training.log import TrainLog

KEY = {"a": 1}


@pytest.fixture(autouse=True)
def watched() -> Iterator[None]:
    """Whoever waits for a pipe's writer would wait for ever."""

    def end(number: int, frame: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_nowhere(path: Path) -> None:
    path.symlink_to(path / "nowhere")


ODD = [pipe, Path.mkdir, link_to_nowhere]
Odd = Callable[[Path], None]


@pytest.mark.parametrize("make", ODD)
@pytest.mark.parametrize("ending", ["safetensors", "json"])
def test_in_the_cache_features_are_made_anew(tmp_path: Path, make: Odd, ending: str):
    made = {"x": torch.ones(2)}
    told: list[str] = []
    FeatureCache(tmp_path).get_or_compute(KEY, lambda: made)
    path = tmp_path / f"{fingerprint(KEY)}.{ending}"
    path.unlink()
    make(path)
    again = FeatureCache(tmp_path).get_or_compute(KEY, lambda: made, on_event=told.append)
    assert torch.equal(again["x"], made["x"])
    assert told
    FeatureCache(tmp_path).prune(0)


@pytest.mark.parametrize("make", [pipe, Path.touch])
def test_in_the_place_of_the_cache(tmp_path: Path, make: Odd):
    make(tmp_path / "cache")
    told: list[str] = []
    made = FeatureCache(tmp_path / "cache").get_or_compute(KEY, lambda: {"x": torch.ones(2)}, on_event=told.append)
    assert made["x"].sum() == 2
    assert "could not be cached" in told[-1]


@pytest.mark.parametrize("make", ODD)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("recipe.yaml", read_recipe),
        ("recipe.yaml", lambda folder: load_recipe(Recipe, str(folder / "recipe.yaml"))),
        ("card.json", read_card),
        ("results.json", read_report),
    ],
)
def test_in_a_run_it_is_an_error_that_names_it(tmp_path: Path, make: Odd, name: str, read: Callable[[Path], object]):
    make(tmp_path / name)
    with pytest.raises(AstreaError, match=name.replace(".", r"\.")):
        read(tmp_path)


@pytest.mark.parametrize("make", [pipe, Path.mkdir])
def test_in_the_place_of_the_log(tmp_path: Path, make: Odd):
    make(tmp_path / "train.jsonl")
    with pytest.raises(AstreaError, match=r"train\.jsonl is not an ordinary file"):
        TrainLog(tmp_path)


@pytest.mark.parametrize("make", ODD)
def test_where_nothing_is_an_answer_too(tmp_path: Path, make: Odd):
    make(tmp_path / "results.json")
    assert results_of(tmp_path) is None
    assert read_run(tmp_path / "results.json") is None


def test_only_ordinary_files_are_hashed(tmp_path: Path):
    pipe(tmp_path / "pipe")
    with pytest.raises(OSError, match="not an ordinary file"):
        sha256_file(tmp_path / "pipe")
