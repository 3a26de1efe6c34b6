"""Commands that train: quickstart, train, pretrain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from astrea.cli.app import Overrides, RunFolder, app, out, print_path
from astrea.common.errors import AstreaError
from astrea.common.paths import exists

if TYPE_CHECKING:
    from astrea.recipes.recipe import Recipe


@app.command()
def quickstart(folder: RunFolder = Path("runs/quickstart"), overrides: Overrides = None) -> None:
    """Train the tiny recipe, evaluate it on the twelve tasks, write a report. Minutes on two cores.

    Continues where it was if it was interrupted.
    """
    from astrea.recipes.loader import load_recipe
    from astrea.recipes.recipe import Recipe

    recipe = load_recipe(Recipe, "tiny", overrides or [])
    train_and_report(recipe, folder, resume=exists(folder / "checkpoints"))


@app.command()
def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A shipped recipe's name (tiny, small, base, large) or a YAML file.")
    ] = None,
    overrides: Overrides = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Run folder; runs/<recipe> by default.")] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Continue this run folder, bit-exactly.", metavar="RUN")
    ] = None,
    evaluate_after: Annotated[
        bool | None,
        typer.Option(
            "--evaluate/--no-evaluate",
            help="Evaluate and report when done; by default unless a finished run has been evaluated already.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train a recipe: align, fuse, tune.

    [bold]astrea train tiny seed=1 tune.steps=800 --out runs/longer[/bold]
    [bold]astrea train tiny pretrain=scratch[/bold]  make the pretrained parts too, first
    [bold]astrea train --resume runs/longer[/bold]   go on after an interruption
    """
    if resume is not None:
        if recipe is not None or overrides or folder is not None:
            raise typer.BadParameter(
                "takes the recipe and the folder from the run itself; leave RECIPE, KEY=VALUE and --out out",
                param_hint="--resume",
            )
        from astrea.recipes.saved import read_recipe

        train_and_report(read_recipe(resume), resume, resume=True, evaluate_after=evaluate_after)
        return
    if recipe is None:
        raise typer.BadParameter("name one (astrea train tiny) or continue a run (--resume RUN)", param_hint="RECIPE")
    from astrea.recipes.loader import load_recipe
    from astrea.recipes.recipe import Recipe

    loaded = load_recipe(Recipe, recipe, overrides or [])
    train_and_report(loaded, folder or Path("runs") / loaded.name, resume=False, evaluate_after=evaluate_after)


def train_and_report(recipe: Recipe, folder: Path, *, resume: bool, evaluate_after: bool | None = None) -> None:
    """Train into ``folder``, then evaluate and print where everything lies.

    Args:
        evaluate_after: None = unless the run was finished and evaluated before.
    """
    from astrea.common.progress import Reporter, TerminalReporter
    from astrea.evaluation.evaluate import evaluate_and_report, results_of
    from astrea.report.summary import terminal_table
    from astrea.training.distributed import is_main_process
    from astrea.training.extras import require_extras
    from astrea.training.run_folder import is_begun
    from astrea.training.stopping import Interrupted, how_to_go_on
    from astrea.training.trainer import is_finished
    from astrea.training.trainer import train as run_training

    require_extras(recipe)
    # Under torchrun this runs in every process; one of them speaks and evaluates.
    with TerminalReporter() if is_main_process() else Reporter() as report:
        try:
            results = results_of(folder) if resume and is_finished(recipe, folder) else None
            if results is not None:
                report.say(f"{folder}: this run is finished and evaluated; --evaluate evaluates it again")
            model = run_training(recipe, folder, resume=resume, report=report)
            if evaluate_after or (evaluate_after is None and results is None):
                results = evaluate_and_report(recipe, folder, report=report) if is_main_process() else None
        except Interrupted as stopped:
            report.say(str(stopped))
            raise typer.Exit(130) from stopped
        except KeyboardInterrupt:
            report.say(f"stopped; {how_to_go_on(folder)}" if is_begun(folder) else "stopped before anything was begun")
            raise typer.Exit(130) from None
    if results is not None:
        out.print(terminal_table(results))
        print_path("report", folder / "report.html")
    if is_main_process():
        print_path("model", model)


@app.command()
def pretrain(
    recipe: Annotated[str, typer.Argument(help="Recipe whose parts are made.")] = "tiny",
    overrides: Overrides = None,
    folder: RunFolder = Path("runs/parts"),
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Only this part (repeat for more); for parallel runs.")
    ] = None,
) -> None:
    """Train what a recipe's runs start from: the compact experts and the small language model, as far as it uses them.

    What it takes from checkpoints of others is not trained.
    """
    from astrea.common.progress import TerminalReporter
    from astrea.recipes.loader import load_recipe
    from astrea.recipes.recipe import Recipe
    from astrea.world.pretrain import parts_of
    from astrea.world.pretrain import pretrain as make_parts

    loaded = load_recipe(Recipe, recipe, overrides or [])
    if not only and not parts_of(loaded):
        raise AstreaError(
            f"the recipe {loaded.name!r} uses none of the parts that are trained here: its experts and its language "
            "model come from elsewhere",
            "train it as it is, or name a part with --only",
        )
    with TerminalReporter() as report:
        make_parts(loaded, folder, report=report, only=only)
    print_path("parts", folder)
