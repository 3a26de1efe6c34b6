"""A copy of a data file without its bad records, in the same format; what can be repaired is repaired."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from astrea.common.errors import AstreaError
from astrea.common.files import atomic_path
from astrea.common.paths import exists, file_guard
from astrea.data.readers.check import Checks, SeenIds
from astrea.data.readers.issues import NOTES, REPAIRABLE, Issue
from astrea.data.readers.pictures import ImageRoot
from astrea.data.readers.reader import JsonReader, Reader, Row, RowReader, form_record, row_id
from astrea.data.readers.record import Record
from astrea.data.readers.repair import repair_row
from astrea.data.readers.tables import TableReader, TableWriter


class _Writer(Protocol):
    def copy(self, index: int) -> None:
        """Write a row of the original as it is."""
        ...

    def write(self, row: Row) -> bool:
        """Write a changed row; False if it does not fit the file."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class FixedCopy:
    """Takes the rows of a reader one after another; writes those that are good or can be repaired.

    ``kept`` counts rows written as they were, ``repaired`` rows that were changed, ``dropped`` rows left out;
    ``repairs`` counts the repaired rows by kind of issue.
    """

    def __init__(self, reader: RowReader, writer: _Writer, root: ImageRoot, checks: Checks) -> None:
        self.reader, self.writer, self.root, self.checks = reader, writer, root, checks
        self.kept = self.repaired = self.dropped = 0
        self.repairs: Counter[str] = Counter()
        self._ids = SeenIds()
        self._suffixes: Counter[str] = Counter()

    def take(self, index: int, record: Record | None, issues: list[Issue]) -> None:
        """Row ``index`` with all its issues; the next one has the next number. What is no row is passed over."""
        if index >= len(self.reader):
            return
        issues = [issue for issue in issues if issue.kind not in NOTES]
        if not issues and (record is None or record.id is None or self._ids.add(record.id)):
            self.writer.copy(index)
            self.kept += 1
        elif all(issue.kind in REPAIRABLE for issue in issues) and self._repair(index):
            self.repaired += 1
            self.repairs.update({issue.kind for issue in issues} or {"duplicate_id"})
        else:
            self.dropped += 1

    def _repair(self, index: int) -> bool:
        """Repair a row and write it; False if it is still not good."""
        where, row = self.reader.row(index)
        if not isinstance(row, dict):
            return False
        row = repair_row(row, self.reader.format)
        record = form_record(self.reader.form, row, where)
        if isinstance(record, Issue) or any(issue.kind not in NOTES for issue in self.checks(record, self.root)):
            return False
        given = row_id(row)
        if given is not None and not self._ids.add(given):
            row["id"] = self._other_id(given)
        return self.writer.write(row)

    def _other_id(self, given: str) -> str:
        """The id with the first free suffix: -2, -3, ..."""
        while True:
            self._suffixes[given] += 1
            other = f"{given}-{self._suffixes[given] + 1}"
            if self._ids.add(other):
                return other


@contextmanager
def fixed_copy(reader: Reader, path: Path, root: ImageRoot, checks: Checks) -> Iterator[FixedCopy]:
    """Opens the copy; it appears at ``path`` when the block ends well.

    Raises:
        AstreaError: ``path`` exists, cannot be written, or the format cannot be copied.
    """
    if exists(path):
        raise AstreaError(f"{path} exists already", "give a new name; nothing is overwritten")
    if not isinstance(reader, (JsonReader, TableReader)):
        what = f"{reader.path}: a {reader.format} file cannot be copied without its bad records"
        raise AstreaError(what, "JSON, JSONL, Parquet and Arrow files can; correct this one by hand")
    if path.suffix.lower() != reader.path.suffix.lower():
        what = f"the copy {path.name} ends in another way than {reader.path.name}"
        raise AstreaError(what, f"end it in {reader.path.suffix}: the copy has the same format")
    with file_guard(path), atomic_path(path) as temporary:
        writer: _Writer = (
            _JsonWriter(reader, temporary) if isinstance(reader, JsonReader) else TableWriter(reader, temporary)
        )
        try:
            yield FixedCopy(reader, writer, root, checks)
        finally:
            writer.close()


class _JsonWriter:
    """JSONL, or an array with one element a line."""

    def __init__(self, reader: JsonReader, path: Path) -> None:
        self.reader = reader
        with file_guard(path):
            self.file = path.open("wb")
        self.between = b",\n" if reader.is_array else b"\n"
        self.first = True
        if reader.is_array:
            self.file.write(b"[\n")

    def copy(self, index: int) -> None:
        self._put(self.reader.raw(index)[1])

    def write(self, row: Row) -> bool:
        self._put(json.dumps(row, ensure_ascii=False).encode("utf-8"))
        return True

    def _put(self, data: bytes) -> None:
        self.file.write(data if self.first else self.between + data)
        self.first = False

    def close(self) -> None:
        self.file.write(b"\n]\n" if self.reader.is_array else b"" if self.first else b"\n")
        self.file.close()
