from __future__ import annotations

import json

import pytest

from small_recipes import SMALL


def test_estimate_on_the_command_line(astrea):
    code, out, err = astrea(
        "estimate",
        "tiny",
        *SMALL,
        "align.progressive=false",
        "fuse.steps=0",
        "tune.steps=0",
        "--json",
        "--utilisation",
        "0.5",
    )
    assert code == 0, err
    told = json.loads(out)
    assert told["recipe"] == "tiny"
    assert [stage["name"] for stage in told["stages"]] == ["align/joint"]
    assert all(stage["smallest_gpu"] == "L4" for stage in told["stages"])
    assert told["utilisation"] == 0.5
    assert told["gpus"]["L4"]["source"]


@pytest.mark.parametrize(
    ("words", "code"), [(["estimate"], 2), (["estimate", "none"], 1), (["estimate", "tiny", "--utilisation", "2"], 2)]
)
def test_misuse(astrea, words, code):
    assert astrea(*words)[0] == code
