"""A build of the package without a trained model says so."""

from __future__ import annotations

from functools import partial

import pytest
from PIL import Image

from astrea.world import bundled as shipping
from astrea.world.bundled import load_bundled
from command_line import QUESTION


@pytest.mark.parametrize(
    "arguments", [("ask", "shipped", "a.png", QUESTION), ("retrieve", "a", "a sun"), ("evaluate", "shipped")]
)
def test_without_a_shipped_model_it_says_so(astrea, monkeypatch, tmp_path, arguments):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    monkeypatch.setattr(shipping, "load_bundled", partial(load_bundled, tmp_path / "none"))
    code, out, err = astrea(*arguments)
    assert (code, out) == (1, "")
    assert "error: this build of Astrea ships no trained model" in err
    assert "astrea quickstart" in err
