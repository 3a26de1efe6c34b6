"""The command that merges low-rank adapters: merge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from astrea.common.lazy import LazyModule
from astrea.common.options import ModelFolder, TrustRemoteCode

if TYPE_CHECKING:
    from astrea.cli.actions import merge as actions
else:
    actions = LazyModule("astrea.cli.actions.merge")


def merge(
    model: ModelFolder,
    folder: Annotated[Path, typer.Option("--out", help="Folder to write; new or empty.", metavar="FOLDER")],
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Merge low-rank adapters into the language model.

    The result is as large and as fast as the model before tuning.
    For models of recipes with [bold]llm.low_rank.merge=false[/bold]; others are merged already.
    """
    actions.merge(model, folder, trust_remote_code=trust_remote_code)
