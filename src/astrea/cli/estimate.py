"""The command that says what a recipe will cost: estimate."""

from __future__ import annotations

from typing import Annotated

import typer

from astrea.cli.app import AsJson, Overrides, app, out, print_json


@app.command()
def estimate(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name (tiny, small, base, large) or a YAML file.")],
    overrides: Overrides = None,
    checkpointing: Annotated[
        bool | None,
        typer.Option(
            "--checkpointing/--keep-states",
            help="Compute the language model's inner states twice, do not keep them; by default as the recipe says.",
        ),
    ] = None,
    utilisation: Annotated[
        float,
        typer.Option(min=0.01, max=1.0, metavar="SHARE", help="Share of a GPU's dense rate that training reaches."),
    ] = 0.35,
    as_json: AsJson = False,
) -> None:
    """Say what training a recipe takes, before anybody pays for it: parameters, operations, memory, GPU, time.

    Needs no weights and no GPU: the recipe's own training steps run on tensors that have a shape and no content.

    [bold]astrea estimate tiny tune.batch=64[/bold]
    """
    from astrea.common.progress import TerminalReporter
    from astrea.estimate.table import estimate as estimate_recipe
    from astrea.estimate.table import for_terminal
    from astrea.recipes.loader import load_recipe
    from astrea.recipes.recipe import Recipe

    loaded = load_recipe(Recipe, recipe, overrides or [])
    with TerminalReporter() as report:
        found = estimate_recipe(loaded, checkpointing=checkpointing, utilisation=utilisation, report=report)
    if as_json:
        print_json(found.as_dict())
        return
    out.print(for_terminal(found))
