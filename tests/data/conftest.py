"""Data files of every kind of row, and training contexts on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from further_rows import CAPTIONS, SCENES, TEXT

from astrea.recipes.recipe import Recipe
from astrea.training.context import TrainingContext
from own_contexts import SEEING, data_of, fresh
from own_files import drawn, mixed_rows, save_pictures, write_jsonl


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, and files of every kind of row."""
    folder = tmp_path_factory.mktemp("own")
    scenes = drawn(SCENES)
    rows = mixed_rows(scenes, save_pictures(scenes, folder))
    write_jsonl(folder / "mixed.jsonl", rows)
    write_jsonl(folder / "text.jsonl", TEXT)
    write_jsonl(folder / "captions.jsonl", CAPTIONS)
    return folder


@pytest.fixture(scope="session")
def built(make_run: Callable[..., Recipe]) -> Callable[..., Any]:
    """A recipe with changes, its fresh model and tokenizer."""

    def build(**changes: Any):
        run = make_run(**{"regularisation": {"contribution_every": 1}, "experts": SEEING, **changes})
        return run, *fresh(run)

    return build


@pytest.fixture
def make_own(folder: Path, built: Callable[..., Any]) -> Callable[..., TrainingContext]:
    """A training context on some of the files."""

    def make(*names: str, row_tokens: int | None = None, **changes: Any) -> TrainingContext:
        run, model, tokenizer = built(**changes)
        data = data_of([folder / name for name in names], model, tokenizer, row_tokens=row_tokens)
        return TrainingContext(run, model, tokenizer, data)

    return make
