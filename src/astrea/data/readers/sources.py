"""From the paths of a recipe or a command line to sources."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from astrea.common.errors import AstreaError
from astrea.common.paths import exists, is_file, matching, refuse_url, shown, size_of
from astrea.common.progress import Reporter
from astrea.common.terminal import counted
from astrea.data.readers.braces import expanded
from astrea.data.readers.detect import SHARD_ENDINGS, AnyReader, open_reader, open_shards
from astrea.data.readers.held_out import split
from astrea.data.readers.mixture import Source
from astrea.data.readers.pictures import ImageRoot

if TYPE_CHECKING:
    from astrea.recipes.recipe import Data

OPTION = "data.images"
"""The key of a recipe that says where its data files' pictures start."""


def configured_sources(
    data: Data, report: Reporter | None = None, *, key: Literal["train", "validation"] = "train"
) -> list[Source]:
    """The sources that ``data.train`` (or another key of it) names; [] if it names none. Where ``data.validation`` is a
    share of what ``data.train`` names, each of the two keys has its side of it.

    Raises:
        AstreaError: a file cannot be read, its format is unknown, or nothing is on the side that is asked for.
    """
    if isinstance(data.validation, float):
        whole = _named_sources(data, "train", report)
        return _side(whole, data.validation, report, held_out=key == "validation")
    return _named_sources(data, key, report)


def _side(whole: Sequence[Source], share: float, report: Reporter | None, *, held_out: bool) -> list[Source]:
    """What of some sources is learned from, or what is held out."""
    parts = [split(source, share, report) for source in whole]
    found = [held if held_out else learned for learned, held, _ in parts]
    records = sum(len(source.reader) for source in whole)
    if records and not any(len(source.reader) for source in found):
        what = "holds out none" if held_out else "holds out all"
        files = ", ".join(dict.fromkeys(source.reader.path.name for source in whole))
        raise AstreaError(
            f"data.validation={share:g} {what} of the {counted(records, 'record')} of {files}",
            "give another share, or name held-out files of their own as data.validation",
        )
    if report is not None and not held_out:
        kept, neither = sum(len(held.reader) for _, held, _ in parts), sum(count for _, _, count in parts)
        also = f"; {counted(neither, 'record')} with pictures of both sides left out" if neither else ""
        report.say(f"held out {counted(kept, 'record')} of {records:,}{also}")
    return [part for part, source in zip(found, whole, strict=True) if len(part.reader) or not len(source.reader)]


def _named_sources(data: Data, key: Literal["train", "validation"], report: Reporter | None) -> list[Source]:
    sources = []
    for entry in data.entries(key):
        if isinstance(entry, str):
            sources += open_sources(entry, images=data.images, option=OPTION, report=report)
        else:
            own = entry.images is not None
            sources += open_sources(
                entry.path,
                images=entry.images if own else data.images,
                option=f"`images` of {entry.path} in data.{key}" if own else OPTION,
                format=entry.format,
                weight=entry.weight,
                report=report,
            )
    return sources


def open_sources(
    path: str,
    *,
    images: str | Path | None = None,
    option: str = "images",
    format: str | None = None,
    weight: float = 1.0,
    report: Reporter | None = None,
) -> list[Source]:
    """The sources behind one path: one per file, but one for all tar shards that a pattern finds.

    Args:
        path: a file, or a pattern such as ``shards/*.tar`` or ``shards/{000..011}.tar``.
        images: the image root; None = the folder of the data file.
        option: what the user gives the image root with, as messages name it.
        format: see `astrea.data.readers.detect.open_reader`; None = found out.
        weight: see `Source`.

    Raises:
        AstreaError: nothing is found, a file cannot be read, or its format is unknown.
    """
    found = matching_files(path)
    if len(found) > 1 and all(file.name.lower().endswith(SHARD_ENDINGS) for file in found):
        return [Source(open_shards(found), ImageRoot(images or found[0].parent, option), weight)]
    return [Source(_open(file, format, report), ImageRoot(images or file.parent, option), weight) for file in found]


def matching_files(path: str) -> Sequence[Path]:
    """What a path stands for: a file of that very name, or else what its braces and its pattern name.

    Raises:
        AstreaError: a pattern finds nothing, or it is a URL.
    """
    refuse_url(path)
    if exists(path):
        return [Path(path)]
    return [file for name in expanded(path) for file in _matching(name)]


def _matching(name: str) -> Sequence[Path]:
    if not glob.has_magic(name) or exists(name):
        return [Path(name)]
    found = matching(name)
    if not found:
        raise AstreaError(f"no data file is called {shown(name)}", "correct the pattern; *, ? and [] stand for others")
    return found


def _open(file: Path, format: str | None, report: Reporter | None) -> AnyReader:
    if report is None or not is_file(file):
        return open_reader(file, format)
    size, label = size_of(file), f"reading {file.name}"
    reader = open_reader(file, format, lambda done: report.track(label, min(done, size), size))
    report.track(label, size, size)
    return reader
