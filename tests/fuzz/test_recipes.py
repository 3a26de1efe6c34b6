"""Odd recipes in a short form: an error that a person can read, or a recipe that comes back as it was written."""

from __future__ import annotations

import contextlib

import pytest

from astrea import AstreaError
from fuzz.recipes import TEXTS, cases, read


def test_odd_recipes_end_well_or_in_an_error_that_names_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = 0
    count = 2 * len(TEXTS)
    for case in cases(count, seed=7, folder=tmp_path):
        with contextlib.suppress(AstreaError):
            case.run()
            continue
        refused += 1
    assert count // 2 < refused <= count
    assert [path.name for path in tmp_path.iterdir()] == ["recipes"]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_that_are_no_recipes(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(AstreaError, match="recipe"):
        read(path, [])
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]
