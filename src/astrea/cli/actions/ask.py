"""What ask does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from astrea.common.devices import Device
from astrea.common.errors import AstreaError
from astrea.common.installation import PHOTO_MODEL, SHIPPED_NAME, SHIPPED_PHOTO_NAME
from astrea.common.lazy import load_object
from astrea.common.output import err, out, print_json, save_picture
from astrea.common.paths import exists, is_folder
from astrea.common.terminal import printable
from astrea.confidence.signals import refuses
from astrea.data.image_sources import read_image
from astrea.experts.drawing import draw_readings
from astrea.model.explanation import Explanation
from astrea.model.loaded import load
from astrea.world.scenes.example import EXAMPLE_NAME, example_picture

REQUIRE_LEARNED = "astrea.training.learned:require_learned"
"""Whether all parts of a photo model are installed; imported where there is such a model."""


def ask(
    folder: Path | None,
    image: str,
    question: str,
    *,
    show: Path | None,
    as_json: bool,
    device: Device,
    trust_remote_code: bool,
) -> None:
    """Print a model's answer about a picture, and why it is the answer.

    Args:
        folder: None = the model in the package that knows such pictures.
    """
    drawn = image == EXAMPLE_NAME and not exists(image)
    picture = read_image(example_picture() if drawn else image)
    if folder is None:
        folder = Path(SHIPPED_NAME if drawn else packaged_model())
    loaded = load(folder, trust_remote_code=trust_remote_code, device=device)
    began = time.perf_counter()
    why = loaded.explain(picture, question)
    seconds = time.perf_counter() - began
    if show is not None:
        save_picture(draw_readings(picture, why.readings), show)
    if as_json:
        print_json(explanation_json(why) | {"seconds": round(seconds, 3)})
        return
    for line in verdict_lines(why):
        out.print(line, soft_wrap=True)
    out.print(experts_table(why))


def packaged_model() -> str:
    """The name of the model in the package that answers about any picture: the one for photographs, where that is there
    and all that it needs is installed, or else that of the drawn world. Says which, and why, on the standard error."""
    why = "this build of Astrea ships no model for photographs; train one: make photo"
    if is_folder(PHOTO_MODEL):
        try:
            load_object(REQUIRE_LEARNED)(PHOTO_MODEL)
        except AstreaError as error:
            why = f"{error.message}; {error.hint}"
        else:
            err.print(f"asking {SHIPPED_PHOTO_NAME}, the model for photographs in the package", soft_wrap=True)
            return SHIPPED_PHOTO_NAME
    err.print(f"asking {SHIPPED_NAME}, which knows drawn scenes and no photographs ({printable(why)})", soft_wrap=True)
    return SHIPPED_NAME


def experts_table(why: Explanation) -> Table:
    """For each expert, by falling gate weight: what would be answered without it, and what it saw."""
    table = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    for justify in ("left", "right", "left"):
        table.add_column(justify=justify, overflow="fold", no_wrap=False)
    for name, share in sorted(why.shares.items(), key=lambda item: -item[1]):
        effect, reading = why.masking[name], why.readings[name]
        same = "the same answer" if effect.answer == why.answer else repr(effect.answer)
        saw = printable(reading.caption or ", ".join(reading.labels)) or "nothing"
        table.add_row(Text(f"  {printable(name)}"), f"gate weight {share:.0%}", Text(f"saw: {saw}\nwithout it: {same}"))
    if (rest := 1 - sum(why.shares.values())) >= 0.005:
        table.add_row("  (any of them)", f"gate weight {rest:.0%}", "what no single expert is needed for")
    return table


def verdict_lines(why: Explanation) -> list[Text]:
    """The answer, or that there is none to be had, with how sure it is; then what speaks against it."""
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
