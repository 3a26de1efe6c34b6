"""The command that talks about a picture: chat."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from astrea.common.lazy import LazyModule
from astrea.common.options import OnDevice, OptionalModel, TrustRemoteCode, model_folder

if TYPE_CHECKING:
    from astrea.cli.actions import chat as actions
else:
    actions = LazyModule("astrea.cli.actions.chat")


def chat(
    *,
    context: typer.Context,
    model: OptionalModel = None,
    image: Annotated[
        str,
        typer.Argument(help="A path, a file: or data: URL; example: the one in the package.", metavar="PICTURE"),
    ],
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="The longest answer.")] = 64,
    device: OnDevice = "auto",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Talk about a picture: answers as they come, with each expert's weight.

    [bold]astrea chat example[/bold]  the picture and the model that come with the package
    [bold]astrea chat MODEL PICTURE[/bold]  with one that you trained
    """
    folder = model_folder(context, model, Path(image), "PICTURE")
    actions.chat(folder, image, longest=max_tokens, device=device, trust_remote_code=trust_remote_code)
