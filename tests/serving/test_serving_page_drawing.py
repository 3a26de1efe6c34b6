"""Where the page draws what experts saw: its own code, run by node on a canvas that notes what is drawn."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from repository import ROOT

SCRIPT = """
const drawn = [];
const note = (what) => (...at) => drawn.push([what, ...at.map(Math.round)]);
const pen = { drawImage() {}, strokeRect: note("box"), fillRect: note("fill") };
const canvas = { getContext: () => pen };
const picture = { width: 400, height: 100 };
draw(canvas, picture, JSON.parse(process.argv[1]));
console.log(JSON.stringify({ width: canvas.width, height: canvas.height, drawn }));
"""
READINGS = [
    {"boxes": [], "labels": [], "scores": [], "mask": ["..", ".A"]},
    {"boxes": [[0, 0, 1, 1], [0.5, 0.25, 0.75, 0.5]], "labels": [], "scores": [], "mask": None},
]


@pytest.mark.skipif(shutil.which("node") is None, reason="no node to run the page's code with")
def test_places_are_shares_of_the_pictures_width_and_height():
    code = (ROOT / "src" / "astrea" / "serving" / "page" / "readings.js").read_text()
    words = ["node", "--input-type=module", "-e", code + SCRIPT, json.dumps(READINGS)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["width"], found["height"]) == (640, 160)
    mask, whole, part = found["drawn"]
    assert mask == ["fill", 320, 80, 321, 81]
    assert whole == ["box", 0, 0, 640, 160]
    assert part == ["box", 320, 40, 160, 40]
