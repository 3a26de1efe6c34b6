"""What quickstart and train do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from astrea.common.output import out, print_path
from astrea.common.paths import exists
from astrea.common.progress import SILENT, TerminalReporter
from astrea.evaluation import evaluate as evaluation
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.recipes.saved import read_recipe
from astrea.report.summary import forgetting_text, terminal_table
from astrea.training import trainer
from astrea.training.distributed import is_main_process
from astrea.training.extras import require_extras
from astrea.training.run_folder import is_begun
from astrea.training.stopping import Interrupted, how_to_go_on


def quickstart(folder: Path, overrides: Sequence[str]) -> None:
    """Train the tiny recipe into a folder, or go on there, then evaluate."""
    train_and_report(load_recipe(Recipe, "tiny", overrides), folder, resume=exists(folder / "checkpoints"))


def train(recipe: str, overrides: Sequence[str], folder: Path | None, *, evaluate_after: bool | None) -> None:
    """Train a recipe into a folder; ``runs/<name>`` where none is given."""
    loaded = load_recipe(Recipe, recipe, overrides)
    train_and_report(loaded, folder or Path("runs") / loaded.name, resume=False, evaluate_after=evaluate_after)


def resume(folder: Path, *, evaluate_after: bool | None) -> None:
    """Go on with the run in a folder."""
    train_and_report(read_recipe(folder), folder, resume=True, evaluate_after=evaluate_after)


def train_and_report(recipe: Recipe, folder: Path, *, resume: bool, evaluate_after: bool | None = None) -> None:
    """Train into ``folder``, then evaluate and print where everything lies.

    Args:
        evaluate_after: None = unless the run was finished and evaluated before.
    """
    require_extras(recipe)
    # Under torchrun this runs in every process; one of them speaks and evaluates.
    with TerminalReporter() if is_main_process() else SILENT as report:
        try:
            results = evaluation.results_of(folder) if resume and trainer.is_finished(recipe, folder) else None
            if results is not None:
                report.say(f"{folder}: this run is finished and evaluated; --evaluate evaluates it again")
            model = trainer.train(recipe, folder, resume=resume, report=report)
            if evaluate_after or (evaluate_after is None and results is None):
                results = evaluation.evaluate_and_report(recipe, folder, report=report) if is_main_process() else None
        except Interrupted as stopped:
            report.say(str(stopped))
            raise typer.Exit(130) from stopped
        except KeyboardInterrupt:
            report.say(f"stopped; {how_to_go_on(folder)}" if is_begun(folder) else "stopped before anything was begun")
            raise typer.Exit(130) from None
    if results is not None:
        out.print(terminal_table(results))
        if forgetting := forgetting_text(results):
            out.print(forgetting, highlight=False, soft_wrap=True, markup=False)
        print_path("report", folder / "report.html")
    if is_main_process():
        print_path("model", model)
