"""Commands that train: quickstart, train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from astrea.common.lazy import LazyModule
from astrea.common.options import Overrides, RunFolder

if TYPE_CHECKING:
    from astrea.cli.actions import train as actions
else:
    actions = LazyModule("astrea.cli.actions.train")


def quickstart(folder: RunFolder = Path("runs/quickstart"), overrides: Overrides = None) -> None:
    """Train the tiny recipe, evaluate it, write a report: minutes on two cores.

    Continues where it was if it was interrupted.
    """
    actions.quickstart(folder, overrides or [])


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A shipped recipe's name (tiny, paper, photo, small, base, large) or a YAML file."),
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
        actions.resume(resume, evaluate_after=evaluate_after)
        return
    if recipe is None:
        raise typer.BadParameter("name one (astrea train tiny) or continue a run (--resume RUN)", param_hint="RECIPE")
    actions.train(recipe, overrides or [], folder, evaluate_after=evaluate_after)
