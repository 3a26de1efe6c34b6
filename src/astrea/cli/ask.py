"""The command that answers: ask."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from astrea.cli.app import AsJson, OnDevice, PerhapsModel, Trust, app, model_folder, out, print_json, save_picture
from astrea.common.paths import exists, is_file
from astrea.common.terminal import printable

if TYPE_CHECKING:
    from astrea.model.explanation import Explanation


@app.command()
def ask(
    *,
    context: typer.Context,
    model: PerhapsModel = None,
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
    trust_remote_code: Trust = False,
) -> None:
    """Ask a question about a picture: the answer, how likely it is right, which experts it leaned on, and what each of
    them saw; or "can't tell", and why not.

    [bold]astrea ask example "what colour is the cat?"[/bold]  the picture and the model that come with the package
    [bold]astrea ask PICTURE "what colour is the cat?"[/bold]  a picture of yours
    [bold]astrea ask MODEL PICTURE "what colour is the cat?"[/bold]  asks one that you trained
    """
    chosen, image, question = given(context, model, image, question)
    from astrea.data.image_sources import read_image
    from astrea.model.explanation import explain
    from astrea.model.loading import load_model
    from astrea.world.scenes.example import EXAMPLE_NAME, example_picture

    folder = model_folder(context, chosen, Path(image), "QUESTION")
    picture = read_image(example_picture() if image == EXAMPLE_NAME and not exists(image) else image)
    loaded, processor = load_model(folder, trust_remote_code=trust_remote_code, device=device)
    began = time.perf_counter()
    why = explain(loaded, processor, picture, question)
    seconds = time.perf_counter() - began
    if show is not None:
        from astrea.experts.drawing import draw_readings

        save_picture(draw_readings(picture, why.readings), show)
    if as_json:
        print_json(explanation_json(why) | {"seconds": round(seconds, 3)})
        return
    for line in verdict_lines(why):
        out.print(line, soft_wrap=True)
    out.print(experts_table(why))


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


def experts_table(why: Explanation) -> Table:
    """For each expert, the one with the largest share first: what would be answered without it, and what it saw."""
    table = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    for justify in ("left", "right", "left"):
        table.add_column(justify=justify, overflow="fold", no_wrap=False)  # type: ignore[arg-type]
    for name, share in sorted(why.shares.items(), key=lambda item: -item[1]):
        effect, reading = why.masking[name], why.readings[name]
        same = "the same answer" if effect.answer == why.answer else repr(effect.answer)
        saw = printable(reading.caption or ", ".join(reading.labels)) or "nothing"
        table.add_row(Text(f"  {printable(name)}"), f"share {share:.0%}", Text(f"saw: {saw}\nwithout it: {same}"))
    if (nobody := 1 - sum(why.shares.values())) >= 0.005:
        table.add_row("  (any of them)", f"share {nobody:.0%}", "what no single expert is needed for")
    return table


def verdict_lines(why: Explanation) -> list[Text]:
    """The answer, or that there is none to be had, with how sure it is; then what speaks against it."""
    from astrea.confidence.signals import refuses

    said = printable(why.answer) or "(no answer)"
    sure = f"{why.confidence:.2f} likely right"
    if not why.calibrated:
        sure = f"probability {why.probability:.2f}, not calibrated"
    doubts = [printable(doubt) for doubt in why.doubts]
    if why.answerable:
        return [Text.assemble((said, "bold"), f"   ({sure})"), *(Text(f"  doubtful: {doubt}") for doubt in doubts)]
    guess = "" if refuses(why.answer) else f"   (best guess: {said}, {sure})"
    first = f": {doubts[0]}" if doubts else ""
    return [Text.assemble(("can't tell", "bold"), first, guess), *(Text(f"  also: {doubt}") for doubt in doubts[1:])]


def explanation_json(why: Explanation) -> dict[str, Any]:
    """An explanation as a program reads it."""
    return {
        "answer": why.answer,
        "answerable": why.answerable,
        "confidence": round(why.confidence, 4),
        "calibrated": why.calibrated,
        "probability": round(why.probability, 4),
        "doubts": list(why.doubts),
        "shares": {name: round(share, 4) for name, share in why.shares.items()},
        "readings": {name: reading.as_dict() for name, reading in why.readings.items()},
        "masking": {n: {"answer": e.answer, "nats_lost": round(e.nats_lost, 4)} for n, e in why.masking.items()},
    }
