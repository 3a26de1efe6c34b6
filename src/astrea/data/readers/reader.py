"""The interface of readers, and the readers of files that hold one record per row."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from astrea.common.errors import AstreaError
from astrea.common.paths import file_guard, hint_for, is_file, missing, open_file, shown
from astrea.data.readers.fields import is_id
from astrea.data.readers.issues import NOTES, BadRow, Issue
from astrea.data.readers.jsonl import parse_object
from astrea.data.readers.line_index import BLANK, DATA_FILE, Track, index_array, index_lines
from astrea.data.readers.record import Record, Where

Row = dict[str, Any]
Form = Callable[[Row, Where], Record]
"""Makes a record of a row, or raises `BadRow`. One function per format."""


class Reader(ABC):
    """The records of one file in their order.

    Args:
        path: the file.
        format: the format's name, for people.
    """

    def __init__(self, path: Path, format: str) -> None:
        self.path = Path(path)
        self.format = format

    @abstractmethod
    def __len__(self) -> int:
        """How many records there are, bad ones included."""

    @abstractmethod
    def examine(self) -> Iterator[Record | Issue]:
        """Every record in order, an `Issue` in place of a bad one; then the issues of the file as a whole."""

    def notes(self) -> Iterator[Issue]:
        """Notes on the file as a whole that cost no record; `examine` ends with them."""
        return iter(())

    def __iter__(self) -> Iterator[Record]:
        """Every record in order.

        Raises:
            AstreaError: a record is bad; names file, line and id.
        """
        for found in self.examine():
            if isinstance(found, Record):
                yield found
            elif found.kind not in NOTES:
                raise found.error()


class IndexedReader(Reader):
    """A reader that gives any record by its number without reading those before it."""

    @abstractmethod
    def read(self, index: int) -> Record | Issue:
        """Record ``index``, 0 <= index < len, or what is wrong with it."""

    @property
    def groups(self) -> list[int]:
        """How many records lie together and are best read together, group by group; [len] if that does not matter."""
        return [len(self)]

    def file_issues(self) -> Iterator[Issue]:
        """What is wrong with the file as a whole."""
        return iter(())

    def __getitem__(self, index: int) -> Record:
        """Record ``index``; a negative one counts from the end.

        Raises:
            IndexError: there are not so many records.
            AstreaError: the record is bad; names file, line and id.
        """
        place = operator.index(index)
        place += len(self) if place < 0 else 0
        if not 0 <= place < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        found = self.read(place)
        if isinstance(found, Issue):
            raise found.error()
        return found

    def examine(self) -> Iterator[Record | Issue]:
        for index in range(len(self)):
            yield self.read(index)
        yield from self.file_issues()


class RowReader(IndexedReader):
    """Rows of a text file or a table, and the function that makes records of them."""

    def __init__(self, path: Path, format: str, form: Form) -> None:
        super().__init__(path, format)
        self.form = form

    @abstractmethod
    def row(self, index: int) -> tuple[Where, Row | BadRow]:
        """Place and content of row ``index``."""

    def read(self, index: int) -> Record | Issue:
        where, row = self.row(index)
        if isinstance(row, BadRow):
            return row.at(where)
        return form_record(self.form, row, where)


class JsonReader(RowReader):
    """A JSONL file, or a ``.json`` file that is one array. Only the places of the rows are kept in memory.

    Args:
        path: the file.
        format, form: the rows' format.
        track: called with the number of bytes that the first pass has read.

    Raises:
        AstreaError: the file cannot be read.
    """

    def __init__(self, path: Path, format: str, form: Form, track: Track | None = None) -> None:
        super().__init__(path, format, form)
        with open_guard(path):
            self.is_array = path.suffix.lower() == ".json" and first_byte(path) == b"["
            self.lines = (index_array if self.is_array else index_lines)(path, track)
        numbers = self.lines.lines
        # Of an array without line breaks between its elements the line says nothing; then elements are counted.
        self.has_lines = not numbers or numbers[-1] - numbers[0] >= len(numbers) - 1

    def __len__(self) -> int:
        return len(self.lines)

    def raw(self, index: int) -> tuple[Where, bytes]:
        """Place and bytes of row ``index``."""
        with open_guard(self.path):
            line, data = self.lines.read(index)
        return Where(str(self.path), line if self.has_lines else index + 1), data

    def row(self, index: int) -> tuple[Where, Row | BadRow]:
        where, data = self.raw(index)
        try:
            return where, parse_object(data)
        except BadRow as bad:
            return where, bad

    def file_issues(self) -> Iterator[Issue]:
        if self.lines.broken:
            line, bad = self.lines.broken
            yield bad.at(Where(str(self.path), line))


class ListReader(IndexedReader):
    """Records (or issues) that are in memory already, such as those of an annotation file."""

    def __init__(self, path: Path, format: str, records: list[Record | Issue]) -> None:
        super().__init__(path, format)
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def read(self, index: int) -> Record | Issue:
        return self.records[index]


def form_record(form: Form, row: Row, where: Where) -> Record | Issue:
    """The record of a row, or what is wrong with it."""
    try:
        return form(row, where)
    except BadRow as bad:
        return bad.at(where, row_id(row))


def row_id(row: Row) -> str | None:
    """The id a row gives itself, whatever else is wrong with it."""
    given = row.get("id")
    return str(given) if is_id(given) else None


def first_byte(path: Path) -> bytes:
    """The first byte of a file that is no blank and no byte order mark; b"" if there is none in the first 64 KiB.

    Raises:
        AstreaError: the file cannot be read.
    """
    with open_file(path, DATA_FILE) as file:
        return file.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip(BLANK)[:1]


def open_guard(path: Path) -> Any:
    """A context in which a file that is missing or cannot be read ends in an `AstreaError` that names it.

    Raises:
        AstreaError: at once, if ``path`` is not an ordinary file (opening a pipe could wait for ever).
    """
    if not is_file(path):
        hint = hint_for(path) or "give the path of a data file; see docs/data.md for the formats"
        raise AstreaError(f"{DATA_FILE} {shown(path)} {missing(path)}", hint)
    return file_guard(path)
