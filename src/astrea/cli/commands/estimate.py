"""The command that says what a recipe will cost: estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from astrea.common.lazy import LazyModule
from astrea.common.options import AsJson, Overrides

if TYPE_CHECKING:
    from astrea.cli.actions import estimate as actions
else:
    actions = LazyModule("astrea.cli.actions.estimate")


def estimate(
    recipe: Annotated[
        str, typer.Argument(help="A shipped recipe's name (tiny, paper, photo, small, base, large) or a YAML file.")
    ],
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
    """Say what a recipe costs: memory, GPU, time.

    Needs no weights and no GPU: the recipe's own training steps run on tensors that have a shape and no content.

    [bold]astrea estimate tiny tune.batch=64[/bold]
    """
    actions.estimate(recipe, overrides or [], checkpointing=checkpointing, utilisation=utilisation, as_json=as_json)
