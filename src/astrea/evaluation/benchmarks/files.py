"""Reading JSON of benchmarks: every problem is reported with file, entry and hint."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from astrea.common.errors import AstreaError

MAX_BYTES = 2 << 30
"""The largest official file (Karpathy's COCO, the VQAv2 annotations) has well under half a gigabyte."""

MAX_NAME = 200
"""The longest name of a picture in bytes; file systems refuse much longer ones, each in its own way."""

AGAIN = "take the official file again, unchanged; docs/public-tasks.md says which one"


class Entry:
    """One JSON object of a file, whose fields are checked when they are asked for.

    Args:
        fields: the object.
        path: the file it is from.
        where: which entry it is, such as ``questions[3]``.

    Raises:
        AstreaError: it is no object; a field asked for is missing or of another kind.
    """

    __slots__ = ("fields", "path", "where")

    def __init__(self, fields: Any, path: Path, where: str) -> None:
        self.fields, self.path, self.where = fields, path, where
        if not isinstance(fields, dict):
            raise self.error(f"is {_kind(fields)}, not an object")

    def error(self, problem: str, hint: str = AGAIN) -> AstreaError:
        """An error about this entry."""
        return AstreaError(f"{self.path}: {self.where}: {problem}" if self.where else f"{self.path}: {problem}", hint)

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.fields.get(name) is not None

    def text(self, name: str) -> str:
        """A string; may be empty."""
        found: str = self._typed(name, str, "a string")
        return found

    def whole(self, name: str) -> int:
        """A whole number."""
        found: int = self._typed(name, int, "a whole number")
        return found

    def id(self, name: str) -> int | str:
        """What identifies an entry: a whole number or a non-empty string, kept as it is."""
        value = self._value(name)
        if isinstance(value, bool) or not isinstance(value, (int, str)) or value == "":
            raise self.error(f"{name!r} is {_kind(value)}, not a whole number or a string")
        return value

    def items(self, name: str) -> list[Any]:
        """A list of anything."""
        found: list[Any] = self._typed(name, list, "a list")
        return found

    def entries(self, name: str) -> Iterator[Entry]:
        """A list of objects."""
        for number, value in enumerate(self.items(name)):
            yield Entry(value, self.path, f"{self.where}.{name}[{number}]".lstrip("."))

    def texts(self, name: str, field: str | None = None) -> tuple[str, ...]:
        """A non-empty list of strings, or of objects whose ``field`` is a string."""
        if field is None:
            found = tuple(self.items(name))
            wrong = next((number for number, value in enumerate(found) if not isinstance(value, str)), None)
            if wrong is not None:
                raise self.error(f"{name}[{wrong}] is {_kind(found[wrong])}, not a string")
        else:
            found = tuple(entry.text(field) for entry in self.entries(name))
        if not found:
            raise self.error(f"{name!r} is empty")
        return found

    def picture(self, folder: Path, name: str) -> Path:
        """The path of a picture that lies inside ``folder``, wherever the file claims it lies.

        Raises:
            AstreaError: the name is empty, absolute, or leads out of the folder.
        """
        parts = PurePosixPath(name).parts
        strange = any(sign in name for sign in "\\\0:") or len(name.encode(errors="replace")) > MAX_NAME
        if not parts or name.startswith("/") or ".." in parts or strange:
            raise self.error(f"the picture's name {name[:80]!r} is not a path inside {folder}")
        return folder.joinpath(*parts)

    def _typed(self, name: str, kind: type, said: str) -> Any:
        value = self._value(name)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(f"{name!r} is {_kind(value)}, not {said}")
        return value

    def _value(self, name: str) -> Any:
        if name not in self.fields:
            raise self.error(f"{name!r} is missing")
        return self.fields[name]


def read_object(path: Path) -> Entry:
    """A file that holds one JSON object.

    Raises:
        AstreaError: it cannot be read, is too large, or holds anything else.
    """
    return Entry(read_json(path), path, "")


def read_list(path: Path) -> Iterator[Entry]:
    """A file that holds a JSON list of objects."""
    return listed(read_json(path), path)


def listed(value: Any, path: Path) -> Iterator[Entry]:
    """The objects of a list that was read from a file."""
    if not isinstance(value, list):
        raise AstreaError(f"{path}: holds {_kind(value)}, not a list", AGAIN)
    for number, fields in enumerate(value):
        yield Entry(fields, path, f"entry {number}")


def read_lines(path: Path) -> Iterator[Entry]:
    """A file of JSON objects, one a line; empty lines are passed over."""
    for number, line in enumerate(_bytes(path).splitlines(), 1):
        if line.strip():
            yield Entry(_parsed(line, f"{path}: line {number}"), path, f"line {number}")


def read_json(path: Path) -> Any:
    """Whatever JSON a file holds."""
    return _parsed(_bytes(path), str(path))


def unique(entries: Iterable[tuple[int | str, Entry]]) -> dict[int | str, Entry]:
    """Entries by their ids.

    Raises:
        AstreaError: an id comes twice.
    """
    found: dict[int | str, Entry] = {}
    for id_, entry in entries:
        if id_ in found:
            raise entry.error(f"the id {id_!r} was there before, at {found[id_].where}")
        found[id_] = entry
    return found


def _bytes(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            # Opening a pipe or a device could wait for ever.
            raise AstreaError(f"{path} is not an ordinary file", AGAIN)
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise AstreaError(f"{path} has {size:,} bytes; at most {MAX_BYTES:,} are read", AGAIN)
        return path.read_bytes()
    except OSError as error:
        raise AstreaError(
            f"{path} cannot be read: {error.strerror or error}", "check the file and its folder"
        ) from error


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AstreaError(f"{where} is not valid JSON: {error}", AGAIN) from error


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "a whole number"}
    return "null" if value is None else names.get(type(value), "a number")
