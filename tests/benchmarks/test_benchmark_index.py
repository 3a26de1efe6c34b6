from __future__ import annotations

import json

import pytest

from benchmark_scripts import benchmark_script

pytestmark = pytest.mark.slow


def test_the_benchmark_measures_everything_and_writes_it(tmp_path, capsys):
    benchmark = benchmark_script("retrieval_index")
    out = tmp_path / "results" / "index.json"
    options = ["--vectors", "600", "--widths", "8", "16", "--queries", "20", "--batch", "5", "--top", "4"]
    returned = benchmark.main([*options, "--repeats", "6", "--out", str(out)])
    assert json.loads(out.read_text()) == returned
    assert [part["width"] for part in returned["widths"]] == [8, 16]
    for part in returned["widths"]:
        assert part["exact"]["serialized_bytes"] > 600 * part["width"] * 4
        for row in (part["exact"], *part["hnsw"]):
            assert 0 < row["one_query_ms"]["p50"] <= row["one_query_ms"]["p99"] <= row["one_query_ms"]["max"]
            assert row["batch_of_5_ms"]["p50"] > 0
        # Among so few vectors a graph finds nearly all.
        assert all(row["recall"]["near"]["nearest"] > 0.9 for row in part["hnsw"])
    assert "recall" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        benchmark.main(["--vectors", "0"])
