from __future__ import annotations

import pytest
from PIL import Image

from astrea.data.images import FORMATS
from astrea.data.suffixes import NOT_READ, READ, is_clutter


def test_the_endings_are_those_of_the_formats_that_are_read():
    named = {ending for ending, format in Image.registered_extensions().items() if format in FORMATS}
    assert set(READ) == named
    assert not set(READ) & set(NOT_READ)


@pytest.mark.parametrize("path", ["a/._0001.txt", "__MACOSX/a/x.png", ".DS_Store", "a/Thumbs.db"])
def test_clutter(path: str):
    assert is_clutter(path)
    assert not is_clutter("a/0001.txt")
