"""Models for photographs side by side, on the same questions of the validation split: what a new one gains is known
before the test is looked at.

    python benchmarks/photo_models.py NAME=MODEL [NAME=MODEL ...] [--questions 60] [--out FILE]

MODEL is a model's folder; models of other names that FILE holds stay there if they were asked as much. Questions are
those of the eight tasks, and those about things of the held-out classes, in compositions that the test does not show.
The file holds, by name, each task's score, their average, each kind of question's, and the scores about new things.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from astrea.common.files import write_json_atomic
from astrea.common.progress import Reporter, TerminalReporter
from astrea.common.provenance import commit, machine
from astrea.data.worlds import open_world
from astrea.evaluation.generate import Predictor
from astrea.model.loading import load_model
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.world.evaluation.runner import EncodedTestSets, run_tasks, template_scores
from astrea.world.evaluation.tasks import TestSets, asked_about
from astrea.world.photographs.compositions import Compositions
from astrea.world.photographs.dataset import features_of
from astrea.world.photographs.evaluate import pooled, source_of, suite_of
from astrea.world.photographs.scene import PhotoScene
from astrea.world.photographs.templates import NEW_THINGS
from astrea.world.photographs.world import PhotographWorld
from astrea.world.scenes.questions import VQA_TASKS

RESULTS = Path(__file__).resolve().parent / "results" / "photo_models.json"
FIRST = 50_000
"""Number of the first composition that is asked about: those of the test come before."""


def questions_about(made: Compositions, kind: str, count: int) -> tuple[TestSets, tuple[str, ...]]:
    """Questions per task about known things of the validation split, or about new ones; and their tasks."""
    templates = made.new_questions if kind == "new" else made.questions

    def scenes(split: str, most: int) -> Iterator[PhotoScene]:
        return (made.scene(split, FIRST + index) for index in range(most))

    source = replace(source_of(made, templates), scenes=scenes)
    shown, asked = asked_about(source, "new" if kind == "new" else "validation", count, seed=source.seed + 11)
    return TestSets(shown, asked, {}, [], [], []), templates.tasks


def scores(folder: Path, made: Compositions, count: int, report: Reporter) -> dict[str, Any]:
    """What a model's answers are worth, 0..100."""
    model, processor = load_model(folder)
    predictor, found = Predictor(model, processor.tokenizer), dict[str, Any]()
    for kind in ("known", "new"):
        sets, tasks = questions_about(made, kind, count)
        encoded = EncodedTestSets(
            sets, features_of(model.experts, made, sets.scenes, report=report), {}, {}, suite_of(made)
        )
        answers = run_tasks(predictor, encoded, tasks, blind=False, label=f"{folder.name}, {kind}", report=report)
        by_template = template_scores(encoded, answers, answers)
        if kind == "known":
            found["tasks"] = {task: answers.scores[task] for task in VQA_TASKS}
            found["average"] = fmean(found["tasks"].values())
            found["templates"] = {name: row["score"] for name, row in by_template.items()}
        else:
            found["new"] = {name: pooled(by_template, of)["score"] for name, of in NEW_THINGS.items()}
    return found


def together(file: Path, questions: int, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What a results file holds with these models, each with the commit that asked it."""
    held = json.loads(file.read_text()) if file.exists() else {}
    before = held["models"] if held.get("questions") == questions else {}
    return {"questions": questions, "models": before | {name: of | {"commit": commit()} for name, of in found.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    parser.add_argument("--questions", type=int, default=60, help="per task")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    world = open_world(load_recipe(Recipe, "photo"))
    assert isinstance(world, PhotographWorld)
    named = dict(each.split("=", 1) for each in given.models)
    with TerminalReporter() as report:
        found = {name: scores(Path(folder), world.made, given.questions, report) for name, folder in named.items()}
    write_json_atomic(given.out, together(given.out, given.questions, found) | {"machine": machine()})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
