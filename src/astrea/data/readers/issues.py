"""An issue of a record as a value: place, record, kind, message and hint."""

from __future__ import annotations

from dataclasses import dataclass

from astrea.common import terminal
from astrea.common.errors import AstreaError
from astrea.data.readers.record import Where

KINDS = {
    "empty_file": "files without a record",
    "encoding": "rows that are not UTF-8",
    "unreadable": "rows that cannot be read",
    "wrong_type": "fields that are missing or of a wrong type",
    "role": "unknown roles",
    "role_order": "roles in a wrong order",
    "no_assistant": "conversations without an assistant's turn",
    "empty_assistant": "empty assistant turns",
    "no_text": "records that say nothing",
    "image_count": "pictures and marks that differ in number",
    "no_image": "text-only rows where pictures are needed",
    "image_path": "picture paths that are absolute or leave the root",
    "image_remote": "pictures on the network",
    "image_missing": "missing pictures",
    "image_corrupt": "pictures that cannot be read",
    "whitespace": "names with whitespace around them",
    "duplicate_id": "ids used twice",
    "cut_images": "pictures that the length limit cuts",
    "no_labels": "answers entirely beyond the length limit",
    "too_long": "answers that the length limit cuts",
    "unusable": "conversations that the chat template refuses",
    "merged": "samples that names with dots make of several",
    "unsorted": "samples whose members are not neighbours",
    "control_token": "texts that spell a control token",
    "unused": "members and fields that nothing reads",
}
"""Every kind of issue, with what a summary calls it."""

NOTES = frozenset({"unused", "control_token"})
"""Kinds that are reported but cost no record."""

REPAIRABLE = frozenset({"whitespace", "duplicate_id", "image_count"})
"""Kinds that can be repaired without guessing (``image_count`` only for one picture without any mark)."""


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing that is wrong with one record.

    Args:
        where: file and line (or row).
        id: the record's id, or None.
        kind: one of `KINDS`.
        message: what is wrong.
        hint: what to do about it.
    """

    where: Where
    id: str | None
    kind: str
    message: str
    hint: str

    def __str__(self) -> str:
        """One line: ``file:line id: message; hint``, with "-" for no id."""
        return f"{printable(str(self.where), 4096)} {self._label()}: {self.message}; {self.hint}"

    def _label(self) -> str:
        return "-" if self.id is None else printable(self.id) or "''"

    def error(self) -> AstreaError:
        """The issue as the error that stops a program."""
        return AstreaError(f"{printable(str(self.where), 4096)} {self._label()}: {self.message}", self.hint)


class BadRow(Exception):
    """Raised while one row is read; the reader, which knows the place, makes it an `Issue`."""

    def __init__(self, kind: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint

    def at(self, where: Where, id: str | None = None) -> Issue:
        """This as an issue at a place."""
        return Issue(where, id, self.kind, self.message, self.hint)


def printable(text: str, most: int = 80) -> str:
    """The text on one line, at most ``most`` characters, whatever a hostile file put into it."""
    return terminal.printable(text if len(text) <= most else text[: most - 3] + "...")


def quoted(value: object, most: int = 60) -> str:
    """A value of the data as a message shows it."""
    return f"'{printable(value, most)}'" if isinstance(value, str) else printable(repr(value), most)
