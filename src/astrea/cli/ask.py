"""The command that answers: ask."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from astrea.cli.app import AsJson, OnDevice, PerhapsModel, Trust, app, model_folder, out, print_json, save_picture
from astrea.terminal import printable

if TYPE_CHECKING:
    from astrea.explanation import Explanation


@app.command()
def ask(
    *,
    context: typer.Context,
    model: PerhapsModel = None,
    image: Annotated[
        str, typer.Argument(help="A picture: JPEG, PNG, WEBP, GIF, BMP or TIFF. A path, or a file: or data: URL.")
    ],
    question: Annotated[str, typer.Argument(help='Such as "how many umbrellas are there?"')],
    as_json: AsJson = False,
    show: Annotated[Path | None, typer.Option("--show", help="Write a picture of the experts' readings here.")] = None,
    device: OnDevice = "auto",
    trust_remote_code: Trust = False,
) -> None:
    """Ask a question about a picture: the answer, which experts it leaned on, and what each of them saw.

    [bold]astrea ask PICTURE "what colour is the cat?"[/bold]  asks the model that comes with the package
    [bold]astrea ask MODEL PICTURE "what colour is the cat?"[/bold]  asks one that you trained
    """
    from astrea.data.image_sources import read_image
    from astrea.explanation import explain
    from astrea.loading import load_model

    folder = model_folder(context, model, Path(image), "QUESTION")
    picture = read_image(image)
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
    answer = Text(printable(why.answer) or "(no answer)", style="bold")
    out.print(Text.assemble(answer, f"   (probability {why.confidence:.2f})"))
    for name, share in sorted(why.shares.items(), key=lambda item: -item[1]):
        effect = why.masking[name]
        without = "same answer" if effect.answer == why.answer else f"would answer {effect.answer!r}"
        reading = why.readings[name]
        saw = printable(reading.caption or ", ".join(reading.labels)) or "nothing"
        out.print(f"  {printable(name):<15} share {share:4.0%}   without it: {without:<28} saw: {saw}", soft_wrap=True)
    if (nobody := 1 - sum(why.shares.values())) >= 0.005:
        out.print(f"  {'(any of them)':<15} share {nobody:4.0%}   what no single expert is needed for")


def explanation_json(why: Explanation) -> dict[str, Any]:
    """An explanation as a program reads it."""
    return {
        "answer": why.answer,
        "confidence": round(why.confidence, 4),
        "shares": {name: round(share, 4) for name, share in why.shares.items()},
        "readings": {name: reading.as_dict() for name, reading in why.readings.items()},
        "masking": {n: {"answer": e.answer, "nats_lost": round(e.nats_lost, 4)} for n, e in why.masking.items()},
    }
