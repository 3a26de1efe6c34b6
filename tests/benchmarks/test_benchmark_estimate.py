from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark_scripts import benchmark_script
from small_recipes import SMALL

pytestmark = pytest.mark.slow


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel keeps the count only on Linux")
def test_the_benchmark_compares_with_real_steps(tmp_path):
    benchmark = benchmark_script("estimate")
    out = tmp_path / "results" / "estimate.json"
    words = [
        "--samples",
        "8",
        "--out",
        str(out),
        *SMALL,
        "align.progressive=false",
        "align.batch=4",
        "fuse.steps=0",
        "tune.steps=0",
    ]
    returned = benchmark.main(words)
    assert json.loads(out.read_text()) == returned
    assert list(returned["stages"]) == ["align/joint"]
    stage = returned["stages"]["align/joint"]
    assert stage["batch"] == 4
    assert stage["estimate"]["peak_bytes"] == sum(stage["estimate"]["by_kind"].values())
    # So small a step drowns in the process's own memory, and may seem to take less than nothing; operations are the
    # same ones anyway.
    standing = stage["measured"]["standing_bytes"]
    assert standing > 0
    assert stage["measured"]["peak_bytes"] == pytest.approx(standing + stage["measured"]["step_bytes"])
    assert stage["ratio"]["plain_step_flops"] == pytest.approx(1, abs=0.05)
    with pytest.raises(SystemExit):
        benchmark.main(["--stages", "none"])


def test_the_benchmark_keeps_estimates_beside_measurements(tmp_path, monkeypatch):
    benchmark = benchmark_script("estimate")
    out = tmp_path / "estimate.json"
    out.write_text(json.dumps({"stages": {"tune": 1}, "estimated": {"recipes": {"other": {}}}}))
    monkeypatch.setattr(
        benchmark,
        "RECIPES",
        {"mine": ("tiny", [*SMALL, "align.steps=0", "fuse.steps=0", "regularisation.contribution_every=0"])},
    )
    written = benchmark.main(["--recipes", "--out", str(out)])
    assert json.loads(out.read_text()) == written
    assert written["stages"] == {"tune": 1}
    assert list(written["estimated"]["recipes"]) == ["other", "mine"]
    found = written["estimated"]["recipes"]["mine"]
    assert [stage["name"] for stage in found["stages"]] == ["tune"]
    with pytest.raises(SystemExit):
        benchmark.main(["--recipes", "nobody's"])
    table = benchmark_script("readme").estimate_tables({"recipes": {"mine": found}})
    assert "**mine**" in table
    assert table.splitlines()[-1].startswith("| tune | 4 | ")
    assert table.splitlines()[-1].count("|") == 7
