"""A library that a run would miss after hours is missed before it begins."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from astrea.common.errors import AstreaError
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.extras import require_extras
from command_line import Astrea, refused

LOW_RANK = "llm.low_rank={rank: 4}"


@pytest.mark.parametrize(
    ("library", "override", "extra"),
    [
        ("peft", LOW_RANK, "lora"),
        ("pyarrow", "data.train=rows/*.parquet", "data"),
        ("pyarrow", "data.train=[a.jsonl, {path: B.ARROW, weight: 2}]", "data"),
        ("pyarrow", "data={train: a.jsonl, validation: held.feather}", "data"),
    ],
)
def test_what_is_missing_is_told(monkeypatch, library: str, override: str, extra: str):
    recipe = load_recipe(Recipe, "tiny", [override])
    require_extras(recipe)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(AstreaError, match=library) as told:
        require_extras(recipe)
    assert f"[{extra}]" in told.value.hint
    require_extras(load_recipe(Recipe, "tiny", ["data.train=a.jsonl"]))


def test_train_stops_before_it_writes_anything(astrea: Astrea, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    refused(astrea("train", "tiny", LOW_RANK, "--out", tmp_path / "run"), "low-rank tuning needs the library peft")
    assert not (tmp_path / "run").exists()
