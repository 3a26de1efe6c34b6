"""What evaluate and report do: with the embedded world, a data file of one's own, a run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from astrea.common.devices import Device
from astrea.common.errors import AstreaError
from astrea.common.output import out, print_json, print_path
from astrea.common.paths import is_file, is_folder
from astrea.common.progress import TerminalReporter
from astrea.data.readers.sources import open_sources
from astrea.evaluation.evaluate import NOTHING_HELD_OUT, evaluate_and_report, how_to_score
from astrea.evaluation.own_data.held_out import measure
from astrea.evaluation.own_data.output import write_measured
from astrea.model.loaded import load
from astrea.recipes.saved import RECIPE, read_recipe
from astrea.report.page import write_report
from astrea.report.summary import terminal_table
from astrea.world.evaluation.evaluate_model import check_names, evaluate_on_tasks


def is_run(folder: Path) -> bool:
    """Whether this is the folder of a run that has a model."""
    return is_file(folder / RECIPE) and is_folder(folder / "model") and not is_file(folder / "config.json")


def evaluate_run(folder: Path, *, as_json: bool, device: Device, trust_remote_code: bool) -> None:
    """Evaluate a run on what its recipe names, and write its results and its report anew."""
    recipe = read_recipe(folder)
    if device != "auto":
        recipe = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"device": device})})
    with TerminalReporter() as report:
        found = evaluate_and_report(recipe, folder, trust_remote_code=trust_remote_code, report=report)
    if found is None:
        raise AstreaError(f"{folder} cannot be scored: {NOTHING_HELD_OUT}", how_to_score(folder))
    _show(found, folder, as_json=as_json)


def evaluate_world(
    model: Path,
    tasks: str,
    *,
    masking: bool,
    split: str,
    recipe: str | None,
    overrides: Sequence[str],
    as_json: bool,
    device: Device,
    trust_remote_code: bool,
) -> None:
    """Evaluate a model (or a run's) on some or all of the embedded world's tasks, and write nothing."""
    model = model / "model" if is_run(model) else model
    chosen = None if tasks == "all" else [name.strip() for name in tasks.split(",")]
    check_names(chosen, split)  # before seconds are spent on loading
    loaded = load(model, trust_remote_code=trust_remote_code, device=device)
    with TerminalReporter() as report:
        results = evaluate_on_tasks(
            loaded, tasks=chosen, masking=masking, split=split, recipe=recipe, overrides=overrides, report=report
        )
    _show(results, None, as_json=as_json)


def evaluate_file(
    model: Path,
    data: str,
    *,
    images: Path | None,
    limit: int | None,
    batch: int,
    masking: bool,
    folder: Path | None,
    as_json: bool,
    device: Device,
    trust_remote_code: bool,
) -> None:
    """Evaluate a model (or a run's) on a data file; with a ``folder``, write results, answers and a report there."""
    model = model / "model" if is_run(model) else model
    with TerminalReporter() as report:
        sources = open_sources(data, images=images, option="--images", report=report)
        loaded = load(model, trust_remote_code=trust_remote_code, device=device)
        measured = measure(*loaded, sources, limit=limit, batch=batch, masking=masking, report=report)
        if folder is not None:
            write_measured(*loaded, measured, folder)
    _show(measured.results, folder, as_json=as_json)


def report(run: Path) -> None:
    """Write a run's report from its results."""
    print_path("report", write_report(run))


def _show(results: dict[str, Any], folder: Path | None, *, as_json: bool) -> None:
    """The scores as JSON or as a table, and where the report lies."""
    if as_json:
        print_json(results)
        return
    out.print(terminal_table(results))
    if folder is not None:
        print_path("report", folder / "report.html")
