"""Data formats of other packages, found by the name of an entry point or as "module:Name".

A format is one of two things:

* a function ``(row, where) -> Record`` for files whose rows Astrea reads itself (JSON, JSONL, Parquet, Arrow);
* a subclass of `IndexedReader` that is called with the path, for files of any other kind.

Both raise `BadRow` for a row that cannot be used; it is then reported with its file and number, and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from astrea.common.errors import AstreaError
from astrea.common.registry import Registry
from astrea.data.readers.issues import BadRow, Issue, quoted
from astrea.data.readers.reader import Form, IndexedReader, Row
from astrea.data.readers.record import Record, Where

PLUGINS = Registry("data format", {}, "astrea.readers")
"""The formats that installed packages register."""

Found = TypeVar("Found")


def plugin(format: str) -> Form | type[IndexedReader] | None:
    """The function or the class behind a format's name; None if the name is not registered and has no colon.

    Raises:
        AstreaError: it cannot be imported, or is neither a function nor a subclass of `IndexedReader`.
    """
    if ":" not in format and format not in PLUGINS.known():
        return None
    found: Any = PLUGINS.find(format, allow_import=True)
    if (isinstance(found, type) and not issubclass(found, IndexedReader)) or not callable(found):
        raise AstreaError(
            f"data format {quoted(format)} is neither a function nor a subclass of IndexedReader",
            "see astrea.data.readers.plugins for what a format is",
        )
    result: Form | type[IndexedReader] = found
    return result


def plugin_form(format: str, form: Form) -> Form:
    """A row format of another package whose failures name the row and the format."""

    def record(row: Row, where: Where) -> Record:
        found = _guarded(format, where, lambda: form(row, where))
        return _checked(format, where, found, Record)

    return record


class PluginReader(IndexedReader):
    """A reader of another package whose failures name the file, the record and the format.

    Raises:
        AstreaError: the file cannot be read.
    """

    def __init__(self, path: Path, format: str, reader: type[IndexedReader]) -> None:
        super().__init__(path, format)
        make: Callable[[Path], IndexedReader] = reader
        self.reader = _guarded(format, Where(str(path)), lambda: make(self.path))

    def __len__(self) -> int:
        return _guarded(self.format, Where(str(self.path)), self.reader.__len__)

    @property
    def groups(self) -> list[int]:
        return self.reader.groups

    def read(self, index: int) -> Record | Issue:
        where = Where(str(self.path), index + 1)
        try:
            found = _guarded(self.format, where, lambda: self.reader.read(index))
        except BadRow as bad:
            return bad.at(where)
        return _checked(self.format, where, found, (Record, Issue))

    def file_issues(self) -> Iterator[Issue]:
        return self.reader.file_issues()

    def notes(self) -> Iterator[Issue]:
        return self.reader.notes()


def _guarded(format: str, where: Where, work: Callable[[], Found]) -> Found:
    """What ``work`` returns; an exception that is neither `BadRow` nor `AstreaError` becomes an `AstreaError`."""
    try:
        return work()
    except (BadRow, AstreaError):
        raise
    except Exception as error:
        raise AstreaError(
            f"{where}: the data format {quoted(format)} raised {type(error).__name__}: {error}",
            "correct the format's code; for a bad row it should raise astrea.data.readers.BadRow",
        ) from error


def _checked(format: str, where: Where, found: Found, wanted: Any) -> Found:
    if not isinstance(found, wanted):
        what = f"{where}: the data format {quoted(format)} returned {type(found).__name__} instead of a Record"
        raise AstreaError(what, "correct the format's code")
    return found
