"""The command that checks data before it is trained on: validate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from astrea.common.lazy import LazyModule
from astrea.common.options import AsJson

if TYPE_CHECKING:
    from astrea.cli.actions import validate as actions
else:
    actions = LazyModule("astrea.cli.actions.validate")


def validate(
    data: Annotated[
        list[str],
        typer.Argument(
            help="Data files: JSON, JSONL, Parquet, Arrow, tar shards, COCO or Karpathy.", metavar="DATA..."
        ),
    ],
    images: Annotated[
        Path | None, typer.Option(help="Folder that the pictures' paths start at. Left out: each data file's own.")
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="Name of the format, such as llava. Left out: found out from the file.")
    ] = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode every picture in full, not its header alone.")
    ] = False,
    need_images: Annotated[bool, typer.Option("--need-images", help="A row without a picture is an issue.")] = False,
    model: Annotated[
        Path | None, typer.Option(help="Model folder (or shipped) whose tokens and limit the rows' length is held to.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="The longest row in tokens instead of the model's limit; needs --model.")
    ] = None,
    fixed: Annotated[
        Path | None,
        typer.Option(
            help="Write a copy here without the bad records, repaired where it is safe (several DATA: a folder)."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check data before it is trained on.

    Prints a line for each issue, with file, line, id and hint. Ends with status 1 if one costs a record.

    [bold]astrea validate train.jsonl --images photos --decode[/bold]
    [bold]astrea validate train.jsonl --fixed clean.jsonl[/bold]
    """
    if tokens is not None and model is None:
        raise typer.BadParameter("--tokens needs --model")
    actions.validate(
        data, images=images, format=format, decode=decode, need_images=need_images, model=model, tokens=tokens,
        fixed=fixed, as_json=as_json,
    )  # fmt: skip
