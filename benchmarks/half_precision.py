"""Whether a model in half precision says what it says in float32, on all twelve tasks.

    python benchmarks/half_precision.py shipped data.test_questions=40 data.test_captions=20

For each task: how many of its items have the same outcome, and the score. The experts of each model look at the
pictures in that model's precision.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from astrea.common.files import write_json_atomic
from astrea.common.progress import Reporter, TerminalReporter
from astrea.common.provenance import commit, machine
from astrea.evaluation.generate import Predictor
from astrea.model.loading import load_model
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.world.evaluation.runner import Outcome, encode_test_sets, run_tasks
from astrea.world.evaluation.tasks import CAPTION_TASKS, TASKS, build_test_sets
from astrea.world.scenes.questions import VQA_TASKS

RESULTS = Path(__file__).resolve().parent / "results" / "half_precision.json"
HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def same_outcomes(whole: Outcome, half: Outcome) -> dict[str, float]:
    """The share of items, in percent, with the same outcome, per task: the same answer, the same scene F1 of a caption,
    the same hit or miss of a retrieval."""
    found = {}
    for task, items in whole.per_item.items():
        same = items == half.per_item[task]
        if task in VQA_TASKS:
            same = np.array(whole.answers[task]) == np.array(half.answers[task])
        found[task] = 100 * float(np.mean(same))
    return found


def same_texts(whole: Outcome, half: Outcome) -> dict[str, float]:
    """The share of captions, in percent, that are the same word by word. One word that was nearly a tie changes all
    that follow it, whether or not they say the same."""
    pairs = {task: zip(whole.answers[task], half.answers[task], strict=True) for task in CAPTION_TASKS}
    return {task: 100 * float(np.mean([one == two for one, two in both])) for task, both in pairs.items()}


def measure(recipe: Recipe, folder: str, report: Reporter) -> dict[str, Any]:
    """Everything, on the test split at the recipe's test sizes."""
    model, processor = load_model(folder)
    sets = build_test_sets(recipe.world, recipe.data)
    whole = run_tasks(
        Predictor(model, processor.tokenizer),
        encode_test_sets(model, sets),
        TASKS,
        blind=False,
        label="float32",
        report=report,
    )
    made: dict[str, Any] = {
        "items": {task: len(items) for task, items in whole.per_item.items()},
        "float32": {"average": whole.average, "scores": whole.scores},
    }
    for name, dtype in HALVES.items():
        half = copy.deepcopy(model).to(dtype)  # type: ignore[arg-type]
        encoded = encode_test_sets(half, sets)
        predictor = Predictor(half, processor.tokenizer)
        outcome = run_tasks(predictor, encoded, TASKS, blind=False, label=name, report=report)
        same = same_outcomes(whole, outcome)
        made[name] = {
            "average": outcome.average,
            "scores": outcome.scores,
            "agreement": same,
            "same_captions": same_texts(whole, outcome),
            "mean_agreement": float(np.mean(list(same.values()))),
            "agreement_of_items": float(np.average(list(same.values()), weights=list(made["items"].values()))),
        }
    return made


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="Half precision against float32 on the twelve tasks.")
    parser.add_argument("model", help='a model folder, or "shipped"')
    parser.add_argument("changes", nargs="*", help="changes of the tiny recipe, such as data.test_questions=40")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_intermixed_args(argv)
    torch.set_num_threads(1)
    found = measure(load_recipe(Recipe, "tiny", args.changes), args.model, TerminalReporter())
    found = {"commit": commit(), "machine": machine(), "changes": args.changes} | found
    write_json_atomic(args.out, found)
    json.dump(found, sys.stdout, indent=1)
    return found


if __name__ == "__main__":
    main()
