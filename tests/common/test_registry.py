"""Plug-ins by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from astrea.common.errors import AstreaError
from astrea.common.registry import Registry

NUMBERS = Registry("number", {"pi": "math:pi"}, group="astrea.numbers")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with two entry points, one of them under a name that is taken."""
    about = tmp_path / "numbers_package-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: numbers-package\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[astrea.numbers]\neuler = math:e\npi = math:tau\nbad = math:none\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_names_are_built_in_registered_or_written_out(package: None) -> None:
    import math

    assert NUMBERS.known() == ["pi", "euler", "bad"]
    assert NUMBERS.find("pi", allow_import=False) == math.pi
    assert NUMBERS.find("euler", allow_import=False) == math.e
    assert NUMBERS.find("math:inf", allow_import=True) == math.inf


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("three", "unknown number 'three'"),
        ("bad", "number 'bad': module 'math' has no attribute 'none'"),
        ("math:three", "number 'math:three': module 'math' has no attribute 'three'"),
        ("no_such_module:x", "number 'no_such_module:x': No module named 'no_such_module'"),
        (":", "number ':': Empty module name"),
    ],
)
def test_errors_name_what_was_asked_for(package: None, name: str, message: str) -> None:
    with pytest.raises(AstreaError, match=re.escape(message)) as error:
        NUMBERS.find(name, allow_import=True)
    assert error.value.hint


def test_an_import_needs_the_users_word() -> None:
    with pytest.raises(AstreaError, match="asks to import the number"):
        NUMBERS.find("math:inf", allow_import=False)
    with pytest.raises(AstreaError, match="asks to import"):
        Registry("number", {}).find("math:inf", allow_import=True)
