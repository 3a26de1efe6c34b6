"""Commands that find pictures: index, retrieve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from astrea.cli.app import AsJson, OnDevice, PerhapsModel, Trust, app, model_folder, out, print_json, print_path
from astrea.common.errors import AstreaError
from astrea.common.installation import require_extra
from astrea.common.paths import exists, is_folder
from astrea.common.terminal import counted, printable

if TYPE_CHECKING:
    from astrea.common.progress import Reporter
    from astrea.model.modeling import AstreaForConditionalGeneration
    from astrea.model.processing import AstreaProcessor
    from astrea.retrieval import Hit

PICTURE_OPTION = "--image"
WITHOUT_INDEX = "without it astrea retrieve searches a plain folder of pictures"


@app.command()
def index(
    *,
    context: typer.Context,
    model: PerhapsModel = None,
    folder: Annotated[Path, typer.Argument(help="Folder of pictures (taken recursively).")],
    place: Annotated[
        Path | None, typer.Option("--out", help="Index folder; FOLDER/.astrea-index by default.", metavar="INDEX")
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Replace an index that is damaged, or of another model or folder.")
    ] = False,
    device: OnDevice = "auto",
    trust_remote_code: Trust = False,
) -> None:
    """Look at a folder of pictures once, so that `astrea retrieve` finds among many of them in a moment.

    Run it again after a change: only new and changed pictures are looked at. When it is stopped, it goes on next time.
    Ends with status 1 if a picture could not be read; the index is complete for the others.

    [bold]astrea index PICTURES[/bold]  by the model that comes with the package
    [bold]astrea index MODEL PICTURES --out INDEX[/bold]  by one that you trained
    """
    chosen = model_folder(context, model, folder, "FOLDER")
    # What can be told at once is told before seconds are spent on loading.
    if not is_folder(folder):
        raise AstreaError(f"{folder} is not a folder", "give a folder of pictures")
    require_extra("index", "an index", WITHOUT_INDEX)
    from astrea.common.progress import TerminalReporter
    from astrea.model.loading import load_model
    from astrea.retrieval.build import build_index
    from astrea.retrieval.store import FOLDER

    loaded, _ = load_model(chosen, trust_remote_code=trust_remote_code, device=device)
    place = place or folder / FOLDER
    with TerminalReporter() as report:
        done = build_index(loaded, chosen.name, folder, place, report=report, rebuild=rebuild)
    out.print(
        f"{counted(done.total, 'picture')}: {done.embedded:,} looked at, {done.known:,} known already, "
        f"{done.removed:,} gone, {len(done.skipped):,} left out",
        highlight=False,
    )
    print_path("index", place)
    if done.skipped:
        raise typer.Exit(1)


@app.command()
def retrieve(
    *,
    context: typer.Context,
    model: PerhapsModel = None,
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
    trust_remote_code: Trust = False,
) -> None:
    """Find the pictures that fit a text best, in a folder or in an index made by `astrea index`.

    [bold]astrea retrieve FOLDER "a red sun and a blue cow."[/bold]  by the model that comes with the package
    [bold]astrea retrieve MODEL FOLDER "a red sun and a blue cow."[/bold]  by one that you trained
    [bold]astrea retrieve MODEL INDEX --image PICTURE[/bold]  pictures like another one
    """
    from astrea.common.progress import TerminalReporter
    from astrea.model.loading import load_model
    from astrea.retrieval.doubtful import doubts_about_text, trusted_first

    places = [*(model or []), *(Path(word) for word in (folder, text) if word is not None)]
    if image is None:
        if folder is None or text is None:
            context.fail(f"Missing argument '{'FOLDER' if text is None else 'TEXT'}'.")
        places.pop()
    elif len(places) > 2 or (len(places) == 2 and is_folder(places[0]) and not exists(places[1])):
        context.fail(f"Give TEXT or {PICTURE_OPTION}, not both")
    elif not places:
        context.fail("Missing argument 'FOLDER'.")
    place = places.pop()
    loaded, processor = load_model(
        model_folder(context, places, place, "FOLDER" if image else "TEXT"),
        trust_remote_code=trust_remote_code,
        device=device,
    )
    with TerminalReporter() as report:
        found = _find(loaded, processor, place, text or "", image, max(top, rerank), rerank, report)
        general = () if image is not None else doubts_about_text(processor, text or "")
        sorted_out = trusted_first(loaded, found, top)
    if as_json:
        print_json(
            [
                {"image": str(hit.path), "score": round(hit.score, 4), "doubts": [*general, *([own] if own else [])]}
                for hit, own in sorted_out
            ]
        )
        return
    for hit, own in sorted_out:
        doubtful = f"   doubtful: {printable(own)}" if own else ""
        out.print(f"{hit.score:9.3f}  {printable(str(hit.path))}{doubtful}", highlight=False, soft_wrap=True)
    against = [*general, *(own for _, own in sorted_out[:1] if own)]
    if sorted_out and against:
        said = printable("; ".join(against))
        out.print(f"The best match is not to be trusted: {said}", highlight=False, soft_wrap=True)


def _find(
    loaded: AstreaForConditionalGeneration,
    processor: AstreaProcessor,
    place: Path,
    text: str,
    image: Path | None,
    top: int,
    rerank: int,
    report: Reporter,
) -> list[Hit]:
    """Search the index at ``place`` if there is one, else the folder itself."""
    from astrea.retrieval import rank_folder
    from astrea.retrieval.search import PictureIndex, changed_since, index_of, search_by_picture, search_by_text

    where = index_of(place)
    if where is None:
        if image is not None:
            raise AstreaError(
                f"{place} holds no index, which {PICTURE_OPTION} needs", f"make one: astrea index {place}"
            )
        return rank_folder(loaded, processor, place, text, top=top, report=report, shortlist=rerank)
    found = PictureIndex(where)
    if not found.manifest.count:
        raise AstreaError(
            f"the index {where} holds no picture", f"put pictures into {found.pictures} and run astrea index again"
        )
    if where != place:
        changed = changed_since(found)
        if changed:
            many = counted(changed, "picture has", "pictures have")
            report.say(f"{many} changed since {where} was made: astrea index brings it up to date")
    if image is not None:
        return search_by_picture(loaded, found, image, top=top)
    return search_by_text(loaded, processor, found, text, top=top, rerank=rerank, report=report)
