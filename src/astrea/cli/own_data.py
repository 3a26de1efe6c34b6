"""What `astrea evaluate` does with a data file of one's own, or with a run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from astrea.cli.app import out, print_path
from astrea.devices import Device
from astrea.paths import is_file, is_folder


def is_run(folder: Path) -> bool:
    """Whether this is the folder of a run that has a model."""
    return is_file(folder / "recipe.yaml") and is_folder(folder / "model") and not is_file(folder / "config.json")


def evaluate_run(folder: Path, *, trust_remote_code: bool) -> dict[str, Any]:
    """Evaluate a run on what its recipe names, and write its results and its report anew."""
    from astrea.evaluation.finish import finish, read_run
    from astrea.progress import TerminalReporter

    with TerminalReporter() as report:
        results = finish(read_run(folder), folder, trust_remote_code=trust_remote_code, report=report)
    return results


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
    from astrea.data.records.sources import open_sources
    from astrea.evaluation.own.held_out import measure
    from astrea.evaluation.own.output import write_measured
    from astrea.loading import load_model
    from astrea.progress import TerminalReporter

    with TerminalReporter() as report:
        sources = open_sources(data, images=images, option="--images", report=report)
        loaded, processor = load_model(model, trust_remote_code=trust_remote_code, device=device)
        measured = measure(loaded, processor, sources, limit=limit, batch=batch, report=report)
        if folder is not None:
            write_measured(loaded, processor, measured, folder)
    return measured.results


def print_table(results: dict[str, Any], folder: Path | None) -> None:
    """The scores as a table, and where the report lies."""
    from astrea.evaluation.summary import terminal_table

    out.print(terminal_table(results))
    if folder is not None:
        print_path("report", folder / "report.html")
