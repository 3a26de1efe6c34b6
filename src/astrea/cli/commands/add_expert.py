"""The command that adds an expert to a trained model: add-expert."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from astrea.common.lazy import LazyModule
from astrea.common.options import ModelFolder, Overrides, TrustRemoteCode

if TYPE_CHECKING:
    from astrea.cli.actions import add_expert as actions
else:
    actions = LazyModule("astrea.cli.actions.add_expert")


def add_expert(
    model: ModelFolder,
    overrides: Overrides = None,
    *,
    expert: Annotated[
        str,
        typer.Option(
            "--expert", help='The new expert: a name of your own and its kind or "module:Class".', metavar="NAME=KIND"
        ),
    ],
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="Option of the expert's constructor (repeat for more).", metavar="KEY=VALUE"),
    ] = None,
    data: Annotated[
        str, typer.Option("--data", help="Recipe whose pictures, captions and align settings are used.")
    ] = "tiny",
    gate_weight: Annotated[
        float | None,
        typer.Option(
            help="The new expert's part of the experts' gate weights, on average; 0.001 by default.",
            show_default=False,
        ),
    ] = None,
    folder: Annotated[Path, typer.Option("--out", help="Model folder to write; new or empty.", metavar="FOLDER")],
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Add an expert to a trained model: only its adapter learns.

    [bold]astrea add-expert shipped --expert photo=photo_expert:PhotoExpert --out runs/photo[/bold]
    [bold]astrea add-expert MODEL --expert palette=palette_expert:PaletteExpert --out runs/five[/bold]

    The class must be importable, as with `astrea train`; a model folder that holds such an expert is loaded with
    --trust-remote-code.
    """  # fmt: skip
    actions.add_expert(
        model, expert, folder, options=option or [], recipe=data, overrides=overrides or [], gate_weight=gate_weight,
        trust_remote_code=trust_remote_code,
    )  # fmt: skip
