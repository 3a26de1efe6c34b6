"""The command that answers: ask."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from astrea.common.installation import SHIPPED_NAME
from astrea.common.lazy import LazyModule
from astrea.common.options import AsJson, OnDevice, OptionalModel, TrustRemoteCode, model_folder
from astrea.common.paths import is_file

if TYPE_CHECKING:
    from astrea.cli.actions import ask as actions
    from astrea.cli.actions import ask_batch as many
else:
    actions = LazyModule("astrea.cli.actions.ask")
    many = LazyModule("astrea.cli.actions.ask_batch")

LONGEST_OF_MANY = 64


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
    batch: Annotated[
        Path | None,
        typer.Option("--batch", help="JSONL file of questions, in place of PICTURE and QUESTION.", metavar="QUESTIONS"),
    ] = None,
    answers: Annotated[
        Path | None, typer.Option("--out", help="JSONL file of answers to the --batch.", metavar="ANSWERS")
    ] = None,
    as_json: AsJson = False,
    show: Annotated[Path | None, typer.Option("--show", help="Write a picture of the experts' readings here.")] = None,
    device: OnDevice = "auto",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Ask a question about a picture, and why this is the answer.

    Prints the answer, how likely it is right, each expert's gate weight and what it saw; or "can't tell", and why not.

    [bold]astrea ask example "what colour is the cat?"[/bold]  the picture and the model that come with the package
    [bold]astrea ask PICTURE "what colour is the cat?"[/bold]  a picture of yours; the model for photographs, if its
    parts are installed
    [bold]astrea ask MODEL PICTURE "what colour is the cat?"[/bold]  asks one that you trained
    [bold]astrea ask --batch questions.jsonl --out answers.jsonl[/bold]  many; run again, it goes on
    """
    if (batch is None) != (answers is None):
        context.fail("--batch and --out belong together")
    if batch is not None and answers is not None:
        words = [*(model or []), *(Path(word) for word in (image, question) if word is not None)]
        if len(words) > 1:
            context.fail("Give --batch, or PICTURE and QUESTION")
        many.ask_batch(
            words[0] if words else Path(SHIPPED_NAME), batch, answers, longest=LONGEST_OF_MANY, device=device,
            trust_remote_code=trust_remote_code,
        )  # fmt: skip
        return
    chosen, image, question = given(context, model, image, question)
    folder = model_folder(context, chosen, Path(image), "QUESTION")
    actions.ask(
        folder if chosen else None,
        image,
        question,
        show=show,
        as_json=as_json,
        device=device,
        trust_remote_code=trust_remote_code,
    )


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
