"""The benchmark of one's own files runs and writes every figure; what the figures are is not asserted."""

from __future__ import annotations

import json
from types import ModuleType

import pytest

from benchmark_scripts import benchmark_script

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def own_data() -> ModuleType:
    return benchmark_script("own_data")


def test_it_measures_memory_and_waiting_and_keeps_what_it_does_not_measure(own_data, tmp_path, capsys, monkeypatch):
    out = tmp_path / "results" / "own.json"
    monkeypatch.setattr(own_data, "LARGE", (160, 120))
    options = ["--threads", "1", "--out", str(out)]
    memory = own_data.main(
        ["--gigabytes", "0.001", "--parts", "0", "--shard", "4", "--batch", "2", "--samples", "16", *options]
    )["memory"]
    assert memory["real_shards"] == 1
    assert memory["shards"] == round(1e6 / memory["shard_bytes"])
    assert memory["pictures_decoded"] == memory["steps"] * memory["batch"] >= memory["shards"] * 4
    assert [point["gigabytes"] for point in memory["samples"]] == sorted(p["gigabytes"] for p in memory["samples"])
    assert 0 < memory["settled_mb"]["least"] <= memory["settled_mb"]["most"] <= memory["peak_mb"] * 1.05

    both = own_data.main(["--gigabytes", "0", "--parts", "300", "--files", "8", *options])
    assert json.loads(out.read_text()) == both
    assert both["memory"] == memory
    for kind in ("jsonl", "shards"):
        for part, trained in (("whole", {"align", "tune"}), ("align", {"align"}), ("tune", {"tune"})):
            figures = both["waiting"][kind][part]
            assert {stage for stage, steps in figures["steps"].items() if steps} == trained <= figures["seconds"].keys()
            assert 0 <= figures["waiting_share"] <= 1
    for part in both.values():
        assert part["command"].startswith("python benchmarks/own_data.py --")
        assert part["machine"]["cores"]
        assert len(part["load_average_before"]) == len(part["load_average_after"]) == 3
    printed = capsys.readouterr().out
    assert "GB decoded" in printed
    assert "waiting: shards, tune" in printed


def test_a_slope_is_per_unit(own_data):
    assert own_data.slope([(0, 5), (1, 7), (3, 11)]) == pytest.approx(2)
