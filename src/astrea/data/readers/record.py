"""The one value that every format of data becomes: pictures, a conversation about them, captions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

IMAGE_MARK = "<image>"
"""Stands in a message's text where a picture is shown."""

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Where:
    """The place a record came from.

    Args:
        file: the path of the file, as it was given.
        number: counted from 1: the line of a JSON or JSONL file (the element, if elements share a line), the row of a
            table, the sample of a tar shard, the entry among the ``images`` of an annotation file; 0 is the file as a
            whole.
    """

    file: str
    number: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.number}" if self.number else self.file


@dataclass(frozen=True, slots=True)
class FileImage:
    """A picture in a file of its own.

    Args:
        path: as the data says it: relative to the source's image root. Not checked yet, see `ImageRoot`.
    """

    path: str


@dataclass(frozen=True, slots=True)
class InlineImage:
    """A picture that came with its record: the bytes of an image file, and the name it had, if any."""

    data: bytes = field(repr=False)
    name: str = ""


@dataclass(frozen=True, slots=True)
class MemberImage:
    """A picture inside an uncompressed tar shard, read when it is asked for: ``size`` bytes from ``offset`` on."""

    shard: str
    name: str
    offset: int
    size: int


ImageRef = FileImage | InlineImage | MemberImage


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: who speaks (one of `ROLES`) and what, with an ``<image>`` where a picture is shown."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """What one row of data says.

    Args:
        id: the id that the row gives itself, or None.
        source: where the row is.
        images: its pictures, in the order of their marks; none for a text-only row.
        messages: the conversation; may be empty where there are captions.
        captions: sentences that each describe the (only) picture.
        meta: what else a format knows, such as the ``boxes`` of COCO instances or a Karpathy ``split``.
    """

    id: str | None
    source: Where
    images: tuple[ImageRef, ...] = ()
    messages: tuple[Message, ...] = ()
    captions: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def marks(self) -> int:
        """How many places for pictures the messages have."""
        return sum(message.text.count(IMAGE_MARK) for message in self.messages)
