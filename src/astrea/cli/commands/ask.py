"""The command that answers: ask."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from astrea.common.lazy import LazyModule
from astrea.common.options import AsJson, OnDevice, OptionalModel, TrustRemoteCode, model_folder
from astrea.common.paths import is_file

if TYPE_CHECKING:
    from astrea.cli.actions import ask as actions
else:
    actions = LazyModule("astrea.cli.actions.ask")


def ask(
    *,
    context: typer.Context,
    model: OptionalModel = None,
    image: Annotated[
        str | None,
        typer.Argument(
            help="JPEG, PNG, WEBP, GIF, BMP or TIFF: a path, a file: or data: URL; example: the one in the package.",
            metavar="PICTURE",
            show_default=False,
        ),
    ] = None,
    question: Annotated[
        str | None, typer.Argument(help='Such as "how many cows are there?"', metavar="QUESTION", show_default=False)
    ] = None,
    as_json: AsJson = False,
    show: Annotated[Path | None, typer.Option("--show", help="Write a picture of the experts' readings here.")] = None,
    device: OnDevice = "auto",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Ask a question about a picture, and why this is the answer.

    Prints the answer, how likely it is right, each expert's gate weight and what it saw; or "can't tell", and why not.

    [bold]astrea ask example "what colour is the cat?"[/bold]  the picture and the model that come with the package
    [bold]astrea ask PICTURE "what colour is the cat?"[/bold]  a picture of yours
    [bold]astrea ask MODEL PICTURE "what colour is the cat?"[/bold]  asks one that you trained
    """
    chosen, image, question = given(context, model, image, question)
    folder = model_folder(context, chosen, Path(image), "QUESTION")
    actions.ask(folder, image, question, show=show, as_json=as_json, device=device, trust_remote_code=trust_remote_code)


def given(
    context: typer.Context, model: list[Path] | None, image: str | None, question: str | None
) -> tuple[list[Path] | None, str, str]:
    """What was given, once it is clear that neither picture nor question was left out.

    Raises:
        click.UsageError: one was.
    """
    if image is not None and question is not None:
        return model, image, question
    word = question if image is None else image
    if word is None:
        context.fail("Missing arguments 'PICTURE' and 'QUESTION'. Try: astrea ask example \"what colour is the cat?\"")
    # One word: the picture, if it looks like one, or else the question.
    picture = is_file(word) or " " not in word.strip()
    context.fail(f"Missing argument '{'QUESTION' if picture else 'PICTURE'}': {word!r} is all that was given.")
