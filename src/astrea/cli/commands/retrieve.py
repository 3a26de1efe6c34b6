"""Commands that find pictures: index, retrieve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from astrea.common.errors import AstreaError
from astrea.common.installation import require_extra
from astrea.common.lazy import LazyModule
from astrea.common.options import AsJson, OnDevice, OptionalModel, TrustRemoteCode, model_folder
from astrea.common.paths import exists, is_folder

if TYPE_CHECKING:
    from astrea.cli.actions import retrieve as actions
else:
    actions = LazyModule("astrea.cli.actions.retrieve")


PICTURE_OPTION = "--image"
WITHOUT_INDEX = "without it astrea retrieve searches a plain folder of pictures"


def index(
    *,
    context: typer.Context,
    model: OptionalModel = None,
    folder: Annotated[Path, typer.Argument(help="Folder of pictures (taken recursively).")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Index folder; FOLDER/.astrea-index by default.", metavar="INDEX")
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Replace an index that is damaged, or of another model or folder.")
    ] = False,
    device: OnDevice = "auto",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Index a folder of pictures, for `astrea retrieve`.

    Run it again after a change: only new and changed pictures are encoded. When it is stopped, it goes on next time.
    Ends with status 1 if a picture could not be read; the index is complete for the others.

    [bold]astrea index PICTURES[/bold]  by the model that comes with the package
    [bold]astrea index MODEL PICTURES --out INDEX[/bold]  by one that you trained
    """
    chosen = model_folder(context, model, folder, "FOLDER")
    # What can be told at once is told before seconds are spent on loading.
    if not is_folder(folder):
        raise AstreaError(f"{folder} is not a folder", "give a folder of pictures")
    require_extra("index", "an index", WITHOUT_INDEX)
    actions.index(chosen, folder, out, rebuild=rebuild, device=device, trust_remote_code=trust_remote_code)


def retrieve(
    *,
    context: typer.Context,
    model: OptionalModel = None,
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of pictures (searched recursively), or an index.", show_default=False)
    ] = None,
    text: Annotated[str | None, typer.Argument(help='Such as "a red sun and a blue cow."', show_default=False)] = None,
    image: Annotated[
        Path | None, typer.Option(PICTURE_OPTION, help="In place of TEXT: find what looks like this. Needs an index.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many pictures to show.")] = 5,
    rerank: Annotated[
        int, typer.Option(min=0, help="How many pictures the language model reads again and orders; 0: none.")
    ] = 32,
    as_json: AsJson = False,
    device: OnDevice = "auto",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Find the pictures that fit a text best.

    In a folder, or in an index made by `astrea index`.

    [bold]astrea retrieve FOLDER "a red sun and a blue cow."[/bold]  by the model that comes with the package
    [bold]astrea retrieve MODEL FOLDER "a red sun and a blue cow."[/bold]  by one that you trained
    [bold]astrea retrieve MODEL INDEX --image PICTURE[/bold]  pictures like another one
    """
    places = [*(model or []), *(Path(word) for word in (folder, text) if word is not None)]
    if image is None:
        if folder is None or text is None:
            context.fail(f"Missing argument '{'FOLDER' if text is None else 'TEXT'}'.")
        places.pop()
    elif len(places) > 2 or (len(places) == 2 and is_folder(places[0]) and not exists(places[1])):
        context.fail(f"Give TEXT or {PICTURE_OPTION}, not both")
    elif not places:
        context.fail("Missing argument 'FOLDER'.")
    where = places.pop()
    chosen = model_folder(context, places, where, "FOLDER" if image else "TEXT")
    actions.retrieve(
        chosen, where, image if image is not None else text or "", top=top, rerank=rerank, as_json=as_json,
        device=device, trust_remote_code=trust_remote_code,
    )  # fmt: skip
