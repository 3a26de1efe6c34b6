"""What few seeds are worth is simulated, and stands on the arena's page."""

from __future__ import annotations

import json
from pathlib import Path

from benchmark_scripts import benchmark_script

ROOT = Path(__file__).parents[2]


def test_few_seeds_cover_the_truth_less_often_than_many():
    script = benchmark_script("interval_coverage")
    few, many = (script.coverage(seeds, trials=40, resamples=100) for seeds in (2, 8))
    assert few < many <= 100


def test_the_page_says_what_was_simulated():
    found = json.loads((ROOT / "benchmarks/results/interval_coverage.json").read_text())["covered"]
    page = " ".join((ROOT / "docs/arena.md").read_text().split())
    three, five, eight = (f"{found[seeds]:.0f} %" for seeds in ("3", "5", "8"))
    assert f"the truth in {three} of 400 simulations with three seeds, in {five} with five and in {eight}" in page
