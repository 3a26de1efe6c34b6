"""README's photograph is drawn from a model's own answer."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from benchmark_scripts import benchmark_script


def test_the_picture_shows_what_was_answered(tiny_folder, tmp_path, capsys, monkeypatch):
    script = benchmark_script("photograph")
    drawn, out, results = [], tmp_path / "deep" / "photograph.png", tmp_path / "photograph.json"
    monkeypatch.setattr(script.plt.Axes, "text", lambda self, x, y, text, **_: drawn.append(text))
    words = [str(tiny_folder), "is there a cat?", "--picture", "chelsea", "--out", str(out), "--results", str(results)]
    made = script.main(words)
    assert json.loads(results.read_text()) == made
    assert made["question"] == "is there a cat?"
    whole = "\n".join(drawn)
    assert "is there a cat?" in whole
    assert made["answer"] in whole
    for name, share in made["shares"].items():
        without = made["masking"][name]["answer"] or "(no answer)"
        assert any(f"gate weight {share:.0%}" in text and without in text for text in drawn), name
    with Image.open(out) as picture:
        assert picture.width == script.WIDTH * script.DPI
        assert np.asarray(picture).std() > 10


def test_any_file_may_be_the_photograph(tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (8, 8), "red").save(path)
    assert benchmark_script("photograph").photograph(str(path)).getpixel((0, 0)) == (255, 0, 0)
