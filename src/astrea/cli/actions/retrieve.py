"""What index and retrieve do."""

from __future__ import annotations

from pathlib import Path

import typer

from astrea.common.devices import Device
from astrea.common.errors import AstreaError
from astrea.common.output import out, print_json, print_path
from astrea.common.progress import Reporter, TerminalReporter
from astrea.common.terminal import counted, printable
from astrea.model.loading import load_model
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor
from astrea.retrieval import Hit, rank_folder
from astrea.retrieval.build import build_index
from astrea.retrieval.doubtful import doubts_about_text, trusted_first
from astrea.retrieval.search import PictureIndex, changed_since, index_of, search_by_picture, search_by_text
from astrea.retrieval.store import FOLDER


def index(
    model: Path, folder: Path, out_folder: Path | None, *, rebuild: bool, device: Device, trust_remote_code: bool
) -> None:
    """Index a folder of pictures. Ends with status 1 if a picture could not be read."""
    loaded, _ = load_model(model, trust_remote_code=trust_remote_code, device=device)
    place = out_folder or folder / FOLDER
    with TerminalReporter() as report:
        done = build_index(loaded, model.name, folder, place, report=report, rebuild=rebuild)
    out.print(
        f"{counted(done.total, 'picture')}: {done.embedded:,} encoded, {done.known:,} known already, "
        f"{done.removed:,} gone, {len(done.skipped):,} left out",
        highlight=False,
    )
    print_path("index", place)
    if done.skipped:
        raise typer.Exit(1)


def retrieve(
    model: Path,
    place: Path,
    wanted: str | Path,
    *,
    top: int,
    rerank: int,
    as_json: bool,
    device: Device,
    trust_remote_code: bool,
) -> None:
    """Print the pictures of a folder or an index that fit a text best, or that look like a picture."""
    loaded, processor = load_model(model, trust_remote_code=trust_remote_code, device=device)
    with TerminalReporter() as report:
        found = _find(loaded, processor, place, wanted, max(top, rerank), rerank, report)
        general = () if isinstance(wanted, Path) else doubts_about_text(processor, wanted)
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
    wanted: str | Path,
    top: int,
    rerank: int,
    report: Reporter,
) -> list[Hit]:
    """Search the index at ``place`` if there is one, else the folder itself."""
    where = index_of(place)
    if where is None:
        if isinstance(wanted, Path):
            raise AstreaError(f"{place} holds no index, which --image needs", f"make one: astrea index {place}")
        return rank_folder(loaded, processor, place, wanted, top=top, report=report, shortlist=rerank)
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
    if isinstance(wanted, Path):
        return search_by_picture(loaded, found, wanted, top=top)
    return search_by_text(loaded, processor, found, wanted, top=top, rerank=rerank, report=report)
