"""Commands about recipes: show, check, new."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from astrea.common.lazy import LazyModule
from astrea.common.options import Overrides

if TYPE_CHECKING:
    from astrea.cli.actions import recipe as actions
    from astrea.cli.actions import recipe_check as checks
else:
    actions = LazyModule("astrea.cli.actions.recipe")
    checks = LazyModule("astrea.cli.actions.recipe_check")


NameOrFile = Annotated[
    str, typer.Argument(help="A shipped recipe's name, a YAML file, or the folder of a run.", metavar="RECIPE")
]


def show(recipe: NameOrFile, overrides: Overrides = None) -> None:
    """Print a whole recipe: every key with its value.

    Bases and changes are worked in.

    [bold]astrea recipe show tiny[/bold]
    [bold]astrea recipe show runs/mine tune.steps=800[/bold]
    """
    actions.show(recipe, overrides or [])


def check(recipe: NameOrFile, overrides: Overrides = None) -> None:
    """Say what is wrong with a recipe, with file and line.

    Ends with status 1 if anything is.

    [bold]astrea recipe check mine.yaml[/bold]
    """
    checks.check(recipe, overrides or [])


def new(
    path: Annotated[Path, typer.Argument(help="YAML file to write; it must not be there yet.", metavar="FILE")],
    data: Annotated[str, typer.Option("--data", help="Data file to train on, or a pattern.")],
    images: Annotated[
        str | None, typer.Option("--images", help="Where the pictures' paths start; left out: the data file's folder.")
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            "--validation",
            help="Held-out data file, or the share of the data that is held out (0.1): losses while training, scores.",
        ),
    ] = None,
    base: Annotated[str, typer.Option("--base", help="Recipe that it starts from.")] = "tiny",
) -> None:
    """Write a small recipe for data of one's own, with comments.

    [bold]astrea recipe new mine.yaml --data train.jsonl --validation held-out.jsonl[/bold]
    """
    actions.new(path, base, data=data, images=images, validation=validation)
