"""What `astrea evaluate` does: with the embedded world, public data sets, a data file of one's own, a run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from astrea.cli.app import out, print_json, print_path
from astrea.common.devices import Device
from astrea.common.errors import AstreaError
from astrea.common.paths import is_file, is_folder


def is_run(folder: Path) -> bool:
    """Whether this is the folder of a run that has a model."""
    return is_file(folder / "recipe.yaml") and is_folder(folder / "model") and not is_file(folder / "config.json")


def evaluate_run(folder: Path, *, device: Device, trust_remote_code: bool) -> dict[str, Any]:
    """Evaluate a run on what its recipe names, and write its results and its report anew."""
    from astrea.common.progress import TerminalReporter
    from astrea.evaluation.evaluate import NOTHING_HELD_OUT, evaluate_and_report, how_to_score
    from astrea.recipes.saved import read_recipe

    recipe = read_recipe(folder)
    if device != "auto":
        recipe = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"device": device})})
    with TerminalReporter() as report:
        found = evaluate_and_report(recipe, folder, trust_remote_code=trust_remote_code, report=report)
    if found is None:
        raise AstreaError(f"{folder} cannot be scored: {NOTHING_HELD_OUT}", how_to_score(folder))
    return found


def evaluate_world(
    model: Path,
    tasks: str,
    *,
    masking: bool,
    split: str,
    recipe: str | None,
    overrides: Sequence[str],
    device: Device,
    trust_remote_code: bool,
) -> dict[str, Any]:
    """Evaluate a model on some or all of the twelve tasks, and write nothing."""
    from astrea.common.progress import TerminalReporter
    from astrea.model.loading import load_model
    from astrea.world.evaluation.config import learned_from_others, measured_on
    from astrea.world.evaluation.runner import evaluate
    from astrea.world.evaluation.tasks import TASKS

    chosen = TASKS if tasks == "all" else tuple(name.strip() for name in tasks.split(","))
    unknown = [name for name in chosen if name not in TASKS]
    if unknown:
        raise AstreaError(f"unknown task {unknown[0]!r}", f"known tasks: {', '.join(TASKS)}")
    if split not in ("test", "validation"):
        raise AstreaError(f"unknown split {split!r}", "choose test or validation")
    loaded, processor = load_model(model, trust_remote_code=trust_remote_code, device=device)
    world, sizes = measured_on(model, loaded.config.image_size, recipe=recipe, overrides=overrides)
    with TerminalReporter() as report:
        if learned_from_others(model):
            report.say(
                "this model was not trained on the embedded world, whose tasks say little about it; "
                "--data FILE measures it on data like its own"
            )
        results, _, _ = evaluate(
            loaded, processor.tokenizer, world, sizes, tasks=chosen, masking=masking, split=split, report=report
        )
    return results


def evaluate_public_sets(model: Path, *, as_json: bool, data: str | None, **options: Any) -> None:
    """Evaluate a model on public data sets, and print what was found; ``options`` as `evaluate_public` has them.

    Raises:
        AstreaError: a task failed; what the others gave has been printed.
    """
    from astrea.common.progress import TerminalReporter
    from astrea.evaluation.benchmarks.command import evaluate_public, public_table

    with TerminalReporter() as report:
        figures, error = evaluate_public(model, data=Path(data) if data else None, report=report, **options)
    print_json(figures) if as_json else out.print(public_table(figures))
    if error is not None:
        raise error


def evaluate_file(
    model: Path,
    data: str,
    *,
    images: Path | None,
    limit: int | None,
    folder: Path | None,
    batch: int,
    device: Device,
    trust_remote_code: bool,
) -> dict[str, Any]:
    """Evaluate a model on a data file of one's own; with a ``folder``, write results, answers, samples and a report."""
    from astrea.common.progress import TerminalReporter
    from astrea.data.readers.sources import open_sources
    from astrea.evaluation.own_data.held_out import measure
    from astrea.evaluation.own_data.output import write_measured
    from astrea.model.loading import load_model

    with TerminalReporter() as report:
        sources = open_sources(data, images=images, option="--images", report=report)
        loaded, processor = load_model(model, trust_remote_code=trust_remote_code, device=device)
        measured = measure(loaded, processor, sources, limit=limit, batch=batch, report=report)
        if folder is not None:
            write_measured(loaded, processor, measured, folder)
    return measured.results


def show(results: dict[str, Any], folder: Path | None, *, as_json: bool) -> None:
    """The scores as JSON or as a table, and where the report lies."""
    from astrea.report.summary import terminal_table

    if as_json:
        print_json(results)
        return
    out.print(terminal_table(results))
    if folder is not None:
        print_path("report", folder / "report.html")
