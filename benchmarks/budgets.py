"""Setting E1 with a model that was tuned with experts left out: what a gate that chooses by the question keeps.

    python benchmarks/budgets.py runs/arena-e1/models/strategy-astrea-0 --folder runs/e1-skipping [--split test]

The first folder is the model that ``astrea arena --recipe tiny --setting e1 --strategies astrea --seeds 1
--on validation`` kept. It is tuned further with `regularisation.expert_skipping` in ``--folder``, which is taken up
where it is there already. Both models answer under every budget by every rule, see
`astrea.lab.settings.reports.budgets`. The figures are kept in benchmarks/results/budgets.json, by split and model.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from astrea.common.progress import TerminalReporter
from astrea.common.provenance import commit, machine
from astrea.lab.settings.reports import Measured, budgets
from astrea.lab.settings.settings import sixteen_experts
from astrea.model.loading import load_model
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.sources import open_cache
from astrea.training.trainer import train
from astrea.world.evaluation.runner import Outcome, encode_test_sets
from astrea.world.evaluation.tasks import build_test_sets
from result_files import read_results, write_results

RESULTS = Path(__file__).resolve().parent / "results" / "budgets.json"


def recipe_of(start: Path, most: float, steps: int, changes: Sequence[str]) -> Recipe:
    """The tuning: thresholds up to ``most``, no other stage."""
    own = (
        "threads=1", f"start={start}", "align.steps=0", "fuse.steps=0", f"tune.steps={steps}", "tune.lr=3e-4",
        f"regularisation.expert_skipping={most}",
    )  # fmt: skip
    return load_recipe(Recipe, "tiny", [*sixteen_experts(), *own, *changes])


def measured(folder: Path, recipe: Recipe, cache: Path, split: str) -> dict[str, Any]:
    """What every rule keeps at every budget."""
    model, processor = load_model(folder)
    features = open_cache(recipe, cache)
    encoded = encode_test_sets(model, build_test_sets(recipe.world, recipe.data, split=split), features)
    run = Measured(
        model, processor.tokenizer, encoded, Outcome({}, {}, {}, {}, {}), recipe.world, recipe.data, features, 0
    )
    return budgets(run)


def main(given: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", type=Path, help="a trained model of sixteen experts")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="of the recipe")
    parser.add_argument("--folder", type=Path, required=True, help="of the tuning")
    parser.add_argument("--cache", type=Path, help="kept features; in the folder by default")
    parser.add_argument("--most", type=float, default=0.15, help="thresholds are drawn from 0 to this")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_intermixed_args(given)
    torch.set_num_threads(1)
    recipe = recipe_of(asked.start, asked.most, asked.steps, asked.changes)
    cache = asked.cache or asked.folder / "cache"
    with TerminalReporter() as report:
        if not (asked.folder / "model").exists():
            train(recipe, asked.folder, resume=asked.folder.exists(), cache=cache, report=report)
    results = read_results(asked.out)
    split = results.setdefault("splits", {}).setdefault(asked.split, {})
    for name, folder in {"as trained": asked.start, "tuned with experts left out": asked.folder / "model"}.items():
        split[name] = measured(folder, recipe, cache, asked.split)
    tuning = {"expert_skipping": asked.most, "steps": asked.steps, "changes": asked.changes}
    return write_results(asked.out, {**results, "tuning": tuning, "commit": commit(), "machine": machine()})


if __name__ == "__main__":
    main()
