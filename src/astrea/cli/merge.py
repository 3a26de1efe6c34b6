"""The command that merges low-rank adapters: merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from astrea.cli.app import ModelFolder, Trust, app, print_path
from astrea.common.errors import AstreaError


@app.command()
def merge(
    model: ModelFolder,
    folder: Annotated[Path, typer.Option("--out", help="Folder to write; new or empty.", metavar="FOLDER")],
    trust_remote_code: Trust = False,
) -> None:
    """Merge a model's low-rank adapters into its language model: one model as large and as fast as before tuning.

    For models of recipes with [bold]llm.low_rank.merge=false[/bold]; others are merged already.
    """
    from astrea.common.paths import file_guard
    from astrea.language.low_rank import merge as merge_adapters
    from astrea.model.loading import load_model

    with file_guard(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise AstreaError(
                f"{folder} is not an empty folder", "choose another one, or remove what is there yourself"
            )
    loaded, processor = load_model(model, trust_remote_code=trust_remote_code)
    merge_adapters(loaded)
    with file_guard(folder):
        loaded.save_pretrained(folder)
        processor.save_pretrained(folder)
    print_path("model", folder)
