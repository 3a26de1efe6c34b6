"""The command that adds an expert to a trained model: join."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from astrea.cli.app import ModelFolder, Overrides, Trust, app, out, print_path
from astrea.common.errors import AstreaError


@app.command()
def join(
    model: ModelFolder,
    overrides: Overrides = None,
    *,
    expert: Annotated[
        str,
        typer.Option(
            "--expert", help='The newcomer: a name of your own and its kind or "module:Class".', metavar="NAME=KIND"
        ),
    ],
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="Option of the expert's constructor (repeat for more).", metavar="KEY=VALUE"),
    ] = None,
    data: Annotated[
        str, typer.Option("--data", help="Recipe whose pictures, captions and align settings are used.")
    ] = "tiny",
    share: Annotated[
        float | None,
        typer.Option(
            help="The newcomer's part of what the experts get together, on average; 0.001 by default.",
            show_default=False,
        ),
    ] = None,
    folder: Annotated[Path, typer.Option("--out", help="Model folder to write; new or empty.", metavar="FOLDER")],
    trust_remote_code: Trust = False,
) -> None:
    """Add an expert to a trained model by alignment alone: its adapter learns, nothing else changes.

    [bold]astrea join shipped --expert photo=photo_expert:PhotoExpert --out runs/photo[/bold]
    [bold]astrea join MODEL --expert palette=palette_expert:PaletteExpert --option threshold=0.01 --out runs/five[/bold]

    The class must be importable, as with `astrea train`; a model folder that holds such an expert is loaded with
    --trust-remote-code.
    """  # fmt: skip
    from astrea.common.progress import TerminalReporter
    from astrea.model.loading import load_model
    from astrea.recipes.loader import load_recipe
    from astrea.recipes.recipe import ExpertEntry, Recipe
    from astrea.training.add_expert import SHARE, add_expert

    name, equals, kind = expert.partition("=")
    if not (name and equals and kind):
        raise AstreaError(f"--expert {expert!r} does not say NAME=KIND", "such as photo=photo_expert:PhotoExpert")
    recipe = load_recipe(Recipe, data, overrides or [])
    entry = ExpertEntry(kind=kind, options=dict(parsed(given) for given in option or []))
    loaded, processor = load_model(model, trust_remote_code=trust_remote_code)
    with TerminalReporter() as report:
        heard = SHARE if share is None else share
        joined = add_expert(loaded, processor, recipe, name, entry, folder, share=heard, report=report)
    words = f", {joined.words} new words" if joined.words else ""
    out.print(f"{name} has joined: share {joined.share:.2%} on average{words}", highlight=False)
    print_path("model", folder)


def parsed(given: str) -> tuple[str, Any]:
    """KEY=VALUE, the value as YAML reads it, so that 3 is a number and [a, b] a list.

    Raises:
        AstreaError: it is not of that form.
    """
    key, equals, value = given.partition("=")
    if not key.isidentifier() or not equals:
        raise AstreaError(f"--option {given!r} does not say KEY=VALUE", "such as --option threshold=0.01")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise AstreaError(f"--option {given!r}: the value cannot be read", "quote it, or write it as YAML") from error
