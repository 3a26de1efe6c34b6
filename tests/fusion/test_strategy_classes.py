"""Strategies by name, by the entry points of installed packages, and as "module:Class"."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest
from pydantic import BaseModel, ConfigDict, Field

from astrea.common import registry
from astrea.common.errors import AstreaError
from astrea.fusion.peers.average import UniformAverage
from astrea.fusion.peers.mova import MoVA
from astrea.fusion.protocol import Layout
from astrea.fusion.registry import build_strategy, options_of, strategy_class

LAYOUT = Layout(8, ("one", "two"), (3, 2), 2)


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    cells: int = Field(4, ge=1, le=9)


class Own(UniformAverage):
    Options: ClassVar[type[BaseModel]] = Settings

    def __init__(self, layout: Layout, **options) -> None:
        super().__init__(layout)
        self.given = options


OWN = f"{__name__}:Own"


def test_a_class_is_imported_where_that_is_allowed():
    assert build_strategy(OWN, LAYOUT, {"cells": 5}, allow_import=True).given == {"cells": 5}
    with pytest.raises(AstreaError, match="asks to import the fusion strategy") as caught:
        build_strategy(OWN, LAYOUT, {})
    assert "trust_remote_code" in caught.value.hint
    with pytest.raises(AstreaError, match="not a subclass of"):
        strategy_class(f"{__name__}:Settings", allow_import=True)
    with pytest.raises(AstreaError, match="unknown fusion strategy 'magic'"):
        strategy_class("magic", allow_import=True)


def test_a_registered_one_needs_no_such_word(monkeypatch):
    point = EntryPoint("own", OWN, "astrea.strategies")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])
    assert type(build_strategy("own", LAYOUT, {})).__name__ == "Own"


def test_options_are_checked_by_the_strategys_own_model():
    for wrong, said in (
        ({"cells": 0}, "greater than"),
        ({"cels": 1}, "none of this name"),
        ({"cells": "4"}, "integer"),
    ):
        with pytest.raises(AstreaError, match=said):
            build_strategy(OWN, LAYOUT, wrong, allow_import=True)


def test_without_one_the_constructors_arguments_are_the_model():
    fields = options_of(MoVA).model_fields
    assert {name: field.default for name, field in fields.items()} == {"base": None, "blocks": 3, "top": 3, "heads": 4}
    with pytest.raises(AstreaError, match=r"option 'top' .* integer"):
        build_strategy("mova", LAYOUT, {"top": "2"})
