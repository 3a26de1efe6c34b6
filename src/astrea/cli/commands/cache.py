"""Commands about the cache of expert features and of language models from GGUF files: list, prune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from astrea.common.lazy import LazyModule
from astrea.common.options import AsJson

if TYPE_CHECKING:
    from astrea.cli.actions import cache as actions
else:
    actions = LazyModule("astrea.cli.actions.cache")

CacheFolder = Annotated[
    Path, typer.Argument(help="Cache folder; that of a run lies beside the run's own.", metavar="FOLDER")
]


def list_entries(folder: CacheFolder = Path("runs/cache"), as_json: AsJson = False) -> None:
    """List cached expert features and dequantised language models: size and last use."""
    actions.list_entries(folder, as_json=as_json)


def prune(
    folder: CacheFolder = Path("runs/cache"),
    *,
    max_gb: Annotated[
        float, typer.Option("--max-gb", min=0, metavar="GB", help="How much may stay, in 1e9 bytes; 0: nothing.")
    ],
) -> None:
    """Remove cached features and language models, those used longest ago first.

    What is removed is computed again when a run needs it.

    [bold]astrea cache prune --max-gb 5[/bold]
    """
    actions.prune(folder, max_gb)
