"""From a finished model to what a person reads: results.json, sample pictures, the report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astrea.common.errors import AstreaError
from astrea.common.files import write_json_atomic
from astrea.common.folder_lock import folder_lock
from astrea.common.paths import exists, file_guard, read_json
from astrea.common.progress import SILENT, Reporter
from astrea.confidence.estimator import save_estimator
from astrea.data.readers.sources import configured_sources
from astrea.data.worlds import open_world
from astrea.evaluation.forgetting import KEPT
from astrea.evaluation.own_data.confidence import calibrated_on
from astrea.evaluation.own_data.held_out import measure
from astrea.evaluation.own_data.output import write_measured
from astrea.evaluation.run_tasks import evaluate_tasks
from astrea.model.folders.saved import write_card
from astrea.model.loading import load_model
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor
from astrea.recipes.recipe import Recipe
from astrea.report.page import write_report
from astrea.report.results import SCHEMA, parse_results

NOTHING_HELD_OUT = "the recipe names no held-out data (data.validation)"


def evaluate_and_report(
    recipe: Recipe, folder: Path, *, report: Reporter = SILENT, split: str = "test", trust_remote_code: bool = True
) -> dict[str, Any] | None:
    """Evaluate ``folder/model`` on ``data.validation`` or, where it was trained on the embedded world, on that one's
    tasks, and on those of ``evaluation.tasks``; write results, samples and report into ``folder``. None where it was
    trained on data of one's own, none is held out and no task is named: what it scores on the embedded world says
    nothing about it, so that is left to those who ask.

    Args:
        trust_remote_code: import the experts that the model names. By default so: the recipe is the user's own word,
            and what it names has been imported for training already.

    Raises:
        AstreaError: no model there, another run is at work in the folder, or it cannot be written.
    """
    if recipe.data.train is not None and recipe.data.validation is None and not recipe.evaluation.tasks:
        report.say(f"no score: {NOTHING_HELD_OUT}; {how_to_score(folder)}")
        return None
    with folder_lock(folder, report=report):
        model, processor = load_model(
            folder / "model", trust_remote_code=trust_remote_code, device=recipe.runtime.device
        )
        held_out = configured_sources(recipe.data, report, key="validation")
        if held_out:
            measured = measure(model, processor, held_out, masking=True, report=report)
            if model.confidence_estimator is not None:
                given = zip(measured.items, measured.answers.with_pictures, strict=True)
                model.confidence_estimator = calibrated_on(
                    model.confidence_estimator, model, processor, [item for item, said in given if said is not None]
                )
                with file_guard(folder):
                    save_estimator(model.confidence_estimator, folder / "model")
            add_tasks(recipe, model, processor, measured.results, report=report)
            measured.results.update(about_run(recipe, folder, measured.results))
            write_measured(model, processor, measured, folder)
            return measured.results
        if recipe.data.train is not None:
            return evaluate_on_tasks(recipe, folder, model, processor, report=report)
        return evaluate_on_world(recipe, folder, model, processor, report=report, split=split)


def how_to_score(folder: Path) -> str:
    """What to do for a score of a model that was trained on data of one's own with nothing held out."""
    return (
        f"measure it with: astrea evaluate {folder}/model --data FILE; next time hold out a share of the data "
        "(data.validation=0.1) or a file"
    )


def about_run(recipe: Recipe, folder: Path, results: Mapping[str, Any]) -> dict[str, Any]:
    """What results say of the run that they are of."""
    seconds = read_json(folder / "seconds.json") if exists(folder / "seconds.json") else {}
    language = read_json(folder / KEPT) if exists(folder / KEPT) else {}
    forgetting = language.get("forgetting") if isinstance(language, dict) else None
    return {
        **({} if forgetting is None else {"forgetting": forgetting}),
        "strategy": recipe.model.strategy,
        "seed": recipe.seed,
        "recipe": recipe.name,
        "seconds": {**seconds, **results["seconds"]},
    }


def evaluate_on_world(
    recipe: Recipe,
    folder: Path,
    model: AstreaForConditionalGeneration,
    processor: AstreaProcessor,
    *,
    report: Reporter = SILENT,
    split: str,
) -> dict[str, Any]:
    """`evaluate_and_report` on the tasks of the recipe's world, with the folder to oneself."""
    world = open_world(recipe)
    report.say("measuring on validation questions how sure to be")
    model.confidence_estimator = world.learn_confidence(model, processor.tokenizer)
    if model.confidence_estimator is not None:
        with file_guard(folder):
            save_estimator(model.confidence_estimator, folder / "model")
    results = world.evaluate(model, processor, folder, split=split, report=report)
    add_tasks(recipe, model, processor, results, report=report)
    results |= about_run(recipe, folder, results)
    with file_guard(folder):
        write_json_atomic(folder / "results.json", results)
        write_card(
            folder / "model",
            model.config,
            parse_results(read_json(folder / "results.json"), str(folder / "results.json")),
        )
    write_report(folder)
    return results


def evaluate_on_tasks(
    recipe: Recipe,
    folder: Path,
    model: AstreaForConditionalGeneration,
    processor: AstreaProcessor,
    *,
    report: Reporter = SILENT,
) -> dict[str, Any]:
    """`evaluate_and_report` on ``evaluation.tasks`` alone; the average is over these."""
    started = time.perf_counter()
    results: dict[str, Any] = {"schema": SCHEMA, "suite": "own"}
    add_tasks(recipe, model, processor, results, report=report)
    rows = results["tasks"].values()
    for average, score in (("average", "score"), ("blind_average", "blind")):
        results[average] = sum(row[score] for row in rows) / len(rows)
    results["seconds"] = {"evaluate": time.perf_counter() - started}
    results |= about_run(recipe, folder, results)
    with file_guard(folder):
        write_json_atomic(folder / "results.json", results)
    write_report(folder)
    return results


def add_tasks(
    recipe: Recipe,
    model: AstreaForConditionalGeneration,
    processor: AstreaProcessor,
    results: dict[str, Any],
    *,
    report: Reporter = SILENT,
) -> None:
    """Put the scores of ``evaluation.tasks`` beside those that there are; averages stay what they were."""
    taken = results.get("tasks", {})
    for key, rows in evaluate_tasks(model, processor, recipe.evaluation.entries, taken=taken, report=report).items():
        if rows:
            results[key] = {**results.get(key, {}), **rows}


def results_of(folder: Path) -> dict[str, Any] | None:
    """What `evaluate_and_report` has written; None where it has not, or what is there cannot be read."""
    try:
        found = read_json(folder / "results.json")
    except AstreaError:
        return None
    return found if isinstance(found, dict) else None
