"""The benchmark of agreement in fusion: every fault is measured in every trial, and means are over kinds."""

from __future__ import annotations

import json

import pytest

from astrea.experts.corruption_names import KINDS
from benchmark_scripts import benchmark_script


@pytest.fixture(scope="module")
def script():
    return benchmark_script("agreement")


def test_means_are_over_experts_then_over_kinds(script):
    def row(loss, conflict):
        return {"agreement": {"loss": loss, "conflict_loss": conflict, "believed": 0.5}}

    kinds = {"swapped": {"a": row(1.0, 2.0), "b": row(3.0, None)}, "noise": {"a": row(8.0, 4.0)}}
    found = script.mean_of(kinds, ["swapped", "noise"], ["agreement"])
    assert found == {"agreement": {"loss": 5.0, "conflict_loss": 3.0, "believed": 0.5}}


@pytest.mark.slow
def test_every_fault_is_measured_in_every_trial(script, tmp_path, capsys):
    out = tmp_path / "results.json"
    returned = script.main(["--train", "40", "--questions", "1", "--out", str(out)])
    written = json.loads(out.read_text())
    assert written == returned
    [model] = written["models"].values()
    assert list(model["kinds"]) == list(KINDS)
    for row in model["kinds"]["swapped"].values():
        assert set(row) == {"conflict_items", *script.TRIALS}
        assert row["no head"]["believed"] == 1
        assert row["faulty left out"]["believed"] == 0
    assert set(model["kinds"]["wrong_colour"]) == {"captioning", "segmentation"}  # no other names any
    assert f"results: {out}" in capsys.readouterr().out


@pytest.mark.slow
def test_what_was_learned_is_written_where_it_is_wanted(script, tmp_path):
    assert script.main(["--train", "40", "--write", str(tmp_path)]) == {}
    assert (tmp_path / "agreement.safetensors").is_file()
