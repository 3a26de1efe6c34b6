"""How often the arena's intervals cover the truth where nearly all of the spread is that of seeds.

    python benchmarks/interval_coverage.py

Simulated arenas of 60 scenes, with two items of each in two tasks: deviations of seeds 0.1, of scenes 0.02, of single
items 0.02. The results are kept in benchmarks/results/interval_coverage.json, in per cent by the number of seeds.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from astrea.common.files import write_json_atomic
from astrea.common.provenance import commit, machine
from astrea.lab.arena.bootstrap import hierarchical_bootstrap

RESULTS = Path(__file__).resolve().parent / "results" / "interval_coverage.json"
SEEDS, SCENES, TRUTH = (2, 3, 5, 8), 60, 0.1


def coverage(seeds: int, trials: int, resamples: int) -> float:
    """Per cent of simulated arenas with so many seeds whose interval covers the truth."""
    rng = np.random.default_rng(seeds)
    scenes = {task: np.repeat(np.arange(SCENES), 2) for task in "ab"}
    covered = 0
    for trial in range(trials):
        shared = TRUTH + rng.normal(0, 0.1, (seeds, 1)) + np.repeat(rng.normal(0, 0.02, SCENES), 2)
        scores = {task: shared + rng.normal(0, 0.02, (seeds, 2 * SCENES)) for task in "ab"}
        found = hierarchical_bootstrap(scores, scenes, resamples=resamples, seed=trial)
        covered += found["low"] <= 100 * TRUTH <= found["high"]
    return 100 * covered / trials


def main(trials: int = 400, resamples: int = 1000, out: Path = RESULTS) -> None:
    found = {str(seeds): coverage(seeds, trials, resamples) for seeds in SEEDS}
    write_json_atomic(out, {"covered": found, "trials": trials, "commit": commit(), "machine": machine()})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
