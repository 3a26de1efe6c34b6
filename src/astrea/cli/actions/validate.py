"""What validate does."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from astrea.common.errors import AstreaError
from astrea.common.installation import SHIPPED_NAME
from astrea.common.output import out
from astrea.common.paths import file_guard, is_folder
from astrea.common.progress import Reporter, TerminalReporter
from astrea.common.terminal import counted, printable
from astrea.data.packing import Packer
from astrea.data.readers.check import Checks, examine
from astrea.data.readers.issues import KINDS, NOTES, Issue
from astrea.data.readers.mixture import Source
from astrea.data.readers.repaired import FixedCopy, fixed_copy
from astrea.data.readers.sources import open_sources
from astrea.data.readers.trainable import training_checks
from astrea.model.folders.processor import read_processor
from astrea.model.loading import load_model


def validate(
    data: Sequence[str],
    *,
    images: Path | None,
    format: str | None,
    decode: bool,
    need_images: bool,
    model: Path | None,
    tokens: int | None,
    fixed: Path | None,
    as_json: bool,
) -> None:
    """Print every issue of data files. Ends with status 1 if one costs a record."""
    checks = Checks(decode, need_images) if model is None else _checks_of(model, tokens, decode, need_images)
    with TerminalReporter() as report:
        sources = [
            source
            for path in data
            for source in open_sources(path, images=images, option="--images", format=format, report=report)
        ]
        copies = _copy_paths(sources, fixed)
        tell = _Json() if as_json else _Lines()
        for source, path in zip(sources, copies, strict=True):
            tell.file(*_look_over(source, checks, path, tell, report))
    if not tell.end():
        raise typer.Exit(1)


def _look_over(
    source: Source, checks: Checks, path: Path | None, tell: _Lines | _Json, report: Reporter
) -> tuple[Source, dict[str, Any]]:
    """Tell every issue of one source; returns what a summary says of it."""
    issues: Counter[str] = Counter()
    records = pictures = 0
    reader = source.reader
    total, label = len(reader), f"checking {reader.path.name}"
    with ExitStack() as stack:
        copy: FixedCopy | None = None
        if path is not None:
            copy = stack.enter_context(fixed_copy(reader, path, source.root, checks))
        for index, (record, found) in enumerate(examine(reader, source.root, checks)):
            records += index < total
            pictures += 0 if record is None else len(record.images)
            for issue in found:
                issues[issue.kind] += 1
                tell.issue(issue)
            if copy is not None:
                copy.take(index, record, found)
            if index % 100 == 99 and index + 1 < total:
                report.track(label, index + 1, total)
        if total:
            report.track(label, total, total)
    summary: dict[str, Any] = {"records": records, "images": pictures, "issues": dict(issues)}
    if copy is not None:
        summary["fixed"] = {
            "path": str(path),
            "kept": copy.kept,
            "repaired": copy.repaired,
            "dropped": copy.dropped,
            "repairs": dict(copy.repairs),
            "images": str(source.root.folder),
        }
    return source, summary


def _copy_paths(sources: list[Source], fixed: Path | None) -> list[Path | None]:
    """Where the copy of each source goes: the path itself for one, files of their names in it for several."""
    if fixed is None:
        return [None] * len(sources)
    if len(sources) == 1 and not is_folder(fixed):
        return [fixed]
    with file_guard(fixed):
        fixed.mkdir(parents=True, exist_ok=True)
    paths = [fixed / source.reader.path.name for source in sources]
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise AstreaError(f"two data files would be copied to {twice[0]}", "copy them one by one")
    return list(paths)


def _checks_of(model: Path, tokens: int | None, decode: bool, need_images: bool) -> Checks:
    """What training of a model asks of records."""
    shipped = model == Path(SHIPPED_NAME) and not is_folder(model)
    processor = load_model(model)[1] if shipped else read_processor(model)
    packer = Packer(processor.tokenizer, processor.num_visual_tokens)
    return training_checks(packer, tokens or processor.max_length, decode=decode, need_images=need_images)


class _Lines:
    """Faults as lines for people, then one table."""

    def __init__(self) -> None:
        self.files: list[tuple[Source, dict[str, Any]]] = []

    def issue(self, issue: Issue) -> None:
        sys.stdout.write(f"{printable(str(issue))}\n")

    def file(self, source: Source, summary: dict[str, Any]) -> None:
        self.files.append((source, summary))

    def end(self) -> bool:
        """Print what was found; True if nothing was wrong."""
        table = Table("file", "format", "records", "pictures", "issues")
        for column in table.columns[2:]:
            column.justify = "right"
        issues: Counter[str] = Counter()
        for source, summary in self.files:
            issues.update(summary["issues"])
            bad = sum(count for kind, count in summary["issues"].items() if kind not in NOTES)
            counts = (summary["records"], summary["images"], bad)
            table.add_row(source.reader.path.name, source.reader.format, *(f"{count:,}" for count in counts))
        out.print(table)
        for kind, count in issues.most_common():
            out.print(f"{count:8,}  {KINDS[kind]} ({kind})", highlight=False)
        for _, summary in self.files:
            for line in _fixed_lines(summary.get("fixed")):
                out.print(line, highlight=False, soft_wrap=True)
        return issues.keys() <= NOTES


def _fixed_lines(fixed: dict[str, Any] | None) -> Iterator[str]:
    if fixed is None:
        return
    yield (
        f"fixed:   {fixed['path']} ({counted(fixed['kept'], 'record')} as read, {fixed['repaired']:,} repaired, "
        f"{fixed['dropped']:,} left out)"
    )
    for kind, count in fixed["repairs"].items():
        yield f"         repaired {count:,}: {KINDS[kind]}"
    if Path(fixed["path"]).parent.resolve() != Path(fixed["images"]).resolve():
        yield f"         its pictures' paths still start at {fixed['images']}: give --images or data.images with it"


class _Json:
    """Everything as one JSON document, written while it is found."""

    def __init__(self) -> None:
        self.files: list[dict[str, Any]] = []
        self.issues = 0
        self.bad = False

    def issue(self, issue: Issue) -> None:
        row = {
            "file": issue.where.file,
            "line": issue.where.number or None,
            "id": issue.id,
            "kind": issue.kind,
            "message": issue.message,
            "hint": issue.hint,
        }
        sys.stdout.write(('{"issues": [\n' if not self.issues else ",\n") + json.dumps(row))
        self.issues += 1
        self.bad |= issue.kind not in NOTES

    def file(self, source: Source, summary: dict[str, Any]) -> None:
        self.files.append({"file": str(source.reader.path), "format": source.reader.format, **summary})

    def end(self) -> bool:
        """Close the document; True if nothing was wrong."""
        sys.stdout.write("\n], " if self.issues else '{"issues": [], ')
        sys.stdout.write(f'"files": {json.dumps(self.files, indent=2)}}}\n')
        return not self.bad
