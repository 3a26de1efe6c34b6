"""``astrea benchmark``: options in, results and a table out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from astrea.common.devices import Device
from astrea.common.errors import AstreaError
from astrea.common.paths import is_folder
from astrea.common.progress import SILENT, Reporter
from astrea.common.terminal import counted
from astrea.evaluation.benchmarks.answers import Viewer
from astrea.evaluation.benchmarks.items import MODES
from astrea.evaluation.benchmarks.missing import describe, locate
from astrea.evaluation.benchmarks.run import Outcome, Settings, results_of, run_suite, write_results
from astrea.evaluation.benchmarks.suite import choose_tasks
from astrea.evaluation.generate import Predictor
from astrea.model.loading import load_model

OUT = Path("runs/public")


def evaluate_public(
    model: Path,
    *,
    data: Path,
    tasks: str = "all",
    mode: str = "official",
    limit: int | None = None,
    out: Path | None = None,
    predictions: Path | None = None,
    rerank: int = 0,
    batch: int = 16,
    trust_remote_code: bool = False,
    device: Device = "cpu",
    report: Reporter = SILENT,
) -> tuple[dict[str, Any], AstreaError | None]:
    """Evaluate a model, or what an earlier run kept, on the public tasks whose files are in a folder.

    Args:
        model: model folder, or "shipped"; not loaded where ``predictions`` are given.
        data: the folder with the official files; out: where everything is written; None is
            ``runs/public``, or "rescored" in the folder of ``predictions``.

    Returns:
        What `results.json` holds, and the error to end with: a task that was named lacks files, a task was stopped by
        a bad file, or nothing could be run; None if all is well.

    Raises:
        AstreaError: an option is wrong, or the model cannot be loaded.
    """
    chosen = choose_tasks(tasks)
    if not is_folder(data):
        raise AstreaError(f"{data} is not a folder", "give the folder that docs/public-tasks.md describes")
    if mode not in MODES:
        raise AstreaError(f"unknown mode {mode!r}", f"choose {' or '.join(MODES)}")
    out = out or (predictions / "rescored" if predictions else OUT)
    settings = Settings(data, out, str(model), mode, limit, rerank, predictions)
    viewer = None
    if predictions is None and any(locate(task, data)[0] is not None for task in chosen):
        viewer = _viewer(model, batch, trust_remote_code, device)
    outcome = run_suite(chosen, settings, viewer, report)
    write_results(settings, outcome)
    return results_of(settings, outcome), _ending(outcome, settings, named=tasks != "all", report=report)


def _viewer(model: Path, batch: int, trust_remote_code: bool, device: Device) -> Viewer:
    loaded, processor = load_model(model, trust_remote_code=trust_remote_code, device=device)
    return Viewer(Predictor(loaded, processor.tokenizer, batch=batch), processor)


def _ending(outcome: Outcome, settings: Settings, *, named: bool, report: Reporter) -> AstreaError | None:
    """Report what is missing: an error where a task was named or nothing could be run."""
    lines = []
    if outcome.failed:
        lines += [f"{name}: {error}" for name, error in outcome.failed.items()]
    if outcome.missing:
        listed = describe(outcome.missing, settings.data)
        if named or not outcome.tasks:
            lines.append(f"missing, for {counted(len(outcome.missing), 'task')}:\n{listed}")
        else:
            report.say(f"left out for want of files: {', '.join(outcome.missing)}\n{listed}")
    if not lines:
        return None
    return AstreaError("\n".join(lines), "correct these and run the same command with --tasks " + _names(outcome))


def _names(outcome: Outcome) -> str:
    return ",".join([*outcome.failed, *outcome.missing])


def public_table(results: Mapping[str, Any]) -> Table:
    """The figures of a run, for ``rich.print``."""
    table = Table(title=Text(f"{results['model']}, {results['mode']}"), title_style="bold", header_style="dim")
    table.add_column("task")
    table.add_column("metric", style="dim")
    for name in ("score", "n", "of"):
        table.add_column(name, justify="right")
    for name, task in results["tasks"].items():
        score = "–" if task["score"] is None else f"{task['score']:.1f}"
        table.add_row(name, task["metric"], score, f"{task['n']:,}", f"{task['official_n']:,}")
    return table
