"""The recipe `photo` on the photograph world: what it learns, what its alignment is worth in the same time, and how it
compares with experts' findings written out as text.

    python benchmarks/photo.py --folder runs/photo-benchmark [--variants photo unaligned written] [--seeds 0 1 2]
      [KEY=VALUE ...]

Variants, each a run of its own below the folder, which goes on where it was killed:

* photo: the recipe as it is, with the changes given.
* unaligned: without the stage `align` and without its loss in later ones, so that features are vectors which only the
  answers teach; the seconds that the first variant took for it go into more steps of `tune`.
* written: findings as the likeliest words of each expert, in which nothing learns; as many seconds, too.

Each model is measured on the twelve tasks of the test split, with and without the picture (blind), and on things that
training never shows. Seconds are those that stages took by themselves, so variants should run one at a time, or all at
the same time. What is measured is kept variant by variant in benchmarks/results/photo.json; with ``--seeds`` seed by
seed, too (runs below ``seed-N``), which several processes may share among them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from astrea.common.files import write_json_atomic
from astrea.common.progress import TerminalReporter
from astrea.common.provenance import commit, machine
from astrea.data.worlds import open_world
from astrea.model.loading import load_model
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.trainer import train
from astrea.world.evaluation.tasks import TASKS
from astrea.world.scenes.questions import VQA_TASKS

RESULTS = Path(__file__).resolve().parent / "results" / "photo.json"
VARIANTS = {
    "photo": (),
    "unaligned": ("align.steps=0", "fuse.losses.caption_words=0", "tune.losses.caption_words=0"),
    "written": ("align.steps=0", "model.findings=written", "fuse.steps=0", "tune.train=[language_model]"),
}


def stage_seconds(run: Path) -> dict[str, float]:
    """Seconds of align, fuse and tune of a finished run."""
    found = json.loads((run / "seconds.json").read_text())
    names = ("align", "fuse", "tune")
    return {name: sum(taken for stage, taken in found.items() if stage.split("/")[0] == name) for name in names}


def recipe_of(variant: str, changes: Sequence[str], first: Path) -> Recipe:
    """A variant's recipe, as long in seconds as the first one was."""
    recipe = load_recipe(Recipe, "photo", [*changes, *VARIANTS[variant]])
    if variant == "photo":
        return recipe
    before, spent = load_recipe(Recipe, str(first / "recipe.yaml")), stage_seconds(first)
    saved = spent["align"] + (spent["fuse"] if not recipe.fuse.steps else 0)
    more = round(saved / (spent["tune"] / before.tune.steps))
    return load_recipe(Recipe, "photo", [*changes, *VARIANTS[variant], f"tune.steps={before.tune.steps + more}"])


def measured(run: Path, recipe: Recipe, split: str) -> dict[str, Any]:
    """Scores of a run's model, 0..100: of the test as the run's own report has them, if as much is asked."""
    reported = run / "results.json"
    if split == "test" and reported.is_file() and recipe.data == load_recipe(Recipe, str(run / "recipe.yaml")).data:
        found = json.loads(reported.read_text())
    else:
        model, processor = load_model(run / "model")
        with TerminalReporter() as report:
            found = open_world(recipe).measure(model, processor, tasks=TASKS, split=split, report=report)
    tasks = {name: found["tasks"][name] for name in TASKS}
    language = json.loads((run / "language.json").read_text())
    return {
        "average": found["average"],
        "blind_average": found["blind_average"],
        "vqa_average": fmean(tasks[name]["score"] for name in VQA_TASKS),
        "vqa_blind_average": fmean(tasks[name]["blind"] for name in VQA_TASKS),
        "tasks": tasks,
        "naming": found["naming"],
        "new_things": found["new_things"],
        "templates": found["templates"],
        "seconds": stage_seconds(run),
        "steps": {"align": recipe.align.steps, "fuse": recipe.fuse.steps, "tune": recipe.tune.steps},
        "language": language,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="of the recipe, for all variants")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--split", default="test", choices=("test", "validation"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--seeds", nargs="+", type=int)
    given = parser.parse_intermixed_args()
    for seed in given.seeds or [None]:
        folder = given.folder if seed is None else given.folder / f"seed-{seed}"
        changes = [*given.changes, *([] if seed is None else [f"seed={seed}"])]
        for variant in given.variants:
            run = folder / variant
            recipe = recipe_of(variant, changes, folder / "photo")
            if not (run / "model").exists():
                with TerminalReporter() as report:
                    train(recipe, run, resume=run.exists(), cache=given.folder / "cache", report=report)
            # How much is asked may be changed of a run that is finished.
            asked = [change for change in given.changes if change.startswith("data.test_")]
            finished = load_recipe(Recipe, str(run / "recipe.yaml"), asked)
            found = measured(run, finished, given.split)
            found["changes"] = given.changes
            keep(given.out, seed, variant, found, {"split": given.split})
            print(variant, json.dumps({k: v for k, v in found.items() if "average" in k}), flush=True)


def keep(file: Path, seed: int | None, variant: str, found: dict[str, Any], how: dict[str, Any]) -> None:
    """Add what was measured to a results file, which other processes may have added to."""
    results = json.loads(file.read_text()) if file.exists() else {}
    if seed is None:
        results.setdefault("variants", {})[variant] = found
        summary(results)
    else:
        results.setdefault("seeds", {}).setdefault(str(seed), {})[variant] = found
    write_json_atomic(file, results | how | {"commit": commit(), "machine": machine()})


def summary(results: dict[str, Any]) -> None:
    """What the variants say together, at the top of the results."""
    variants = results["variants"]
    for key, (variant, figure) in {
        "average": ("photo", "average"),
        "blind_average": ("photo", "blind_average"),
        "unaligned_average": ("unaligned", "average"),
        "written_average": ("written", "average"),
        "new_things": ("photo", "new_things"),
        "tasks": ("photo", "tasks"),
    }.items():
        if variant in variants:
            results[key] = variants[variant][figure]


if __name__ == "__main__":
    main()
