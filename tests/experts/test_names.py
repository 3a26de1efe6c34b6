"""Names that an expert cannot have are refused in words, wherever one is given."""

from __future__ import annotations

import pytest
from torch import nn

from astrea.common.errors import AstreaError
from astrea.experts.bank import ExpertBank
from astrea.experts.names import NAME, TAKEN, wrong_with
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe

BAD = [
    "train",
    "keys",
    "forward",
    "training",
    "joint",
    "a.b",
    "a/b",
    "a b",
    "",
    "1st",
    "x" * 65,
    "_modules",
    "é",
    "a\n",
]


@pytest.mark.parametrize("name", BAD)
def test_bad_names(name, tmp_path):
    assert "is no name for an expert" in str(wrong_with(name))
    with pytest.raises(AstreaError, match="is no name for an expert"):
        ExpertBank({name: {"kind": "detection"}})
    path = tmp_path / "mine.yaml"
    path.write_text(f'base: tiny\nexperts: {{"{name.encode("unicode_escape").decode()}": {{kind: detection}}}}\n')
    with pytest.raises(AstreaError, match="is no name for an expert"):
        load_recipe(Recipe, str(path))


def test_every_name_that_torch_uses_itself_is_taken():
    assert {name for name in dir(nn.ModuleDict()) if NAME.fullmatch(name)} <= TAKEN


def test_on_the_command_line_too():
    with pytest.raises(AstreaError, match="'train' is no name"):
        load_recipe(Recipe, "tiny", ["experts.train={kind: detection}"])
    with pytest.raises(AstreaError, match="'a/b' is no name"):
        load_recipe(Recipe, "tiny", ["experts.a/b={kind: detection}"])
    taught = "distill={student: s, teachers: {keys: {kind: detection}}}"
    with pytest.raises(AstreaError, match="'keys' is no name"):
        load_recipe(Recipe, "tiny", ["experts.s={kind: student}", taught])


@pytest.mark.parametrize("name", ["photo", "OCR", "clip-l_14", "x" * 64])
def test_good_names_are_names_of_modules(name):
    assert wrong_with(name) is None
    nn.ModuleDict()[name] = nn.Identity()
