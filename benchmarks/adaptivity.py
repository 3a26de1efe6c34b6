"""What a finished model's gate weights tell and save, on more questions than a training run evaluates.

    make quickstart && python benchmarks/adaptivity.py runs/quickstart/model data.test_questions=450

How well they follow what experts are worth, what reading 60 % of the visual tokens costs on all twelve tasks, and
what broken experts cost. A score over few items moves by chance when some of them flip: beside the cost of reading less
stands its standard error over the paired items.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from astrea.common.progress import Reporter, TerminalReporter
from astrea.common.provenance import commit, machine
from astrea.evaluation.generate import Predictor
from astrea.lab.probes.pareto import reading_from
from astrea.lab.probes.probes import probe
from astrea.model.loading import load_model
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.world.evaluation.runner import Outcome, encode_test_sets, run_tasks
from astrea.world.evaluation.tasks import TASKS, build_test_sets
from result_files import write_results

RESULTS = Path(__file__).resolve().parent / "results" / "adaptivity.json"


def standard_error(before: Outcome, after: Outcome) -> float:
    """Of the difference between two averages over tasks, from the paired items, in points."""
    moved = [100 * (after.per_item[task] - before.per_item[task]) for task in before.scores]
    errors = [float(items.std() / np.sqrt(len(items))) for items in moved]
    return float(np.sqrt(np.square(errors).sum()) / len(errors))


def measure(recipe: Recipe, folder: str, report: Reporter) -> dict[str, Any]:
    """Everything, on the test split at the recipe's test sizes."""
    model, processor = load_model(folder)
    tokenizer = processor.tokenizer
    encoded = encode_test_sets(model, build_test_sets(recipe.world, recipe.data))
    predictor = Predictor(model, tokenizer)
    whole = run_tasks(predictor, encoded, TASKS, blind=False, label="all tokens", report=report)
    found = probe(model, tokenizer, encoded, whole, report=report)
    saved, broken = found["saving"], found["robustness"]["mean_loss"]
    with reading_from(model.fusion, saved["threshold"]):
        fewer = run_tasks(predictor, encoded, TASKS, blind=False, label="fewer tokens", report=report)
    return {
        "average": whole.average,
        "items": {task: len(items) for task, items in whole.per_item.items()},
        "load_max_over_mean": found["load"]["max_over_mean"],
        "calibration": found["calibration"],
        "saving": {
            **saved,
            "standard_error": standard_error(whole, fewer),
            "tasks": {task: fewer.scores[task] - score for task, score in whole.scores.items()},
        },
        "masked": -float(np.mean([row["average"] for row in found["masking"].values()])),
        "broken": broken,
        "broken_items_per_task": found["items"],
    }


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write the results; returns what was written."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description="What a finished model's shares tell and save.")
    parser.add_argument("model", help="model folder, or: shipped")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to the recipe")
    chosen = parser.parse_intermixed_args(words)
    recipe = load_recipe(Recipe, "tiny", chosen.overrides)
    torch.set_num_threads(recipe.threads)
    with TerminalReporter() as report:
        figures = measure(recipe, chosen.model, report)
    results = {
        "command": shlex.join(["python", "benchmarks/adaptivity.py", *words]),
        "commit": commit(),
        **machine(),
        **figures,
    }
    saved, calibration = figures["saving"], figures["calibration"]
    raw, relative, per_task = (calibration[name] for name in ("rank_correlation", "relative", "per_task"))
    print(f"average {figures['average']:.1f}; load {figures['load_max_over_mean']:.2f}")
    print(f"calibration: {raw} as measured, {relative} relative, {per_task} per task")
    print(f"{saved['tokens_share']:.0%} of the tokens: {saved['difference']:+.2f}, error {saved['standard_error']:.2f}")
    print(f"an expert masked costs {figures['masked']:.1f}; broken: {figures['broken']}")
    return write_results(chosen.out, results)


if __name__ == "__main__":
    main()
