"""Everything that can be wrong with records, found one by one; `astrea validate` and training use the same checks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from astrea.common.terminal import counted
from astrea.data.readers.control import Find, control_notes, usual_control_tokens
from astrea.data.readers.issues import BadRow, Issue, quoted
from astrea.data.readers.pictures import ImageRoot
from astrea.data.readers.reader import Reader
from astrea.data.readers.record import IMAGE_MARK, FileImage, Record, Where


@dataclass(frozen=True, slots=True)
class Layout:
    """What a record takes as tokens.

    Args:
        tokens: all of them.
        images_end: the place after the last token of the last picture; 0 without pictures.
        first_label: the place of the first token that is learned from; ``tokens`` if there is none.
    """

    tokens: int
    images_end: int
    first_label: int


class TokenCounter(Protocol):
    """Whatever knows how long a record is for a model."""

    @property
    def limit(self) -> int:
        """The longest row in tokens; longer ones would be cut."""
        ...

    def layout(self, record: Record) -> Layout:
        """Where the record's pictures and answers lie.

        Raises:
            BadRow: the record cannot be written as a conversation.
        """
        ...


@dataclass(frozen=True)
class Checks:
    """What is asked of records.

    Args:
        decode: decode every picture in full, instead of reading its header.
        need_images: a record without a picture is an issue.
        tokens: knows the records' length; None = length is not checked.
        control: finds control tokens in texts, which are noted.
    """

    decode: bool = False
    need_images: bool = False
    tokens: TokenCounter | None = None
    control: Find = usual_control_tokens

    def __call__(self, record: Record, root: ImageRoot) -> Iterator[Issue]:
        """Every issue of one record by itself."""
        yield from self._each(record, _name_faults(record))
        yield from self._each(record, _turn_faults(record))
        yield from self._each(record, self._image_faults(record, root))
        if self.tokens is not None:
            yield from self._each(record, _length_faults(record, self.tokens))
        yield from self._each(record, control_notes(record, self.control))

    def _each(self, record: Record, found: Iterator[BadRow]) -> Iterator[Issue]:
        try:
            for bad in found:
                yield bad.at(record.source, record.id)
        except BadRow as bad:
            yield bad.at(record.source, record.id)

    def _image_faults(self, record: Record, root: ImageRoot) -> Iterator[BadRow]:
        if self.need_images and not record.images:
            hint = "leave the row out, or do not ask for pictures"
            yield BadRow("no_image", "the row has no picture", hint)
        if record.captions and not record.images:
            yield BadRow("no_image", "there is no picture that the captions describe", "leave the row out")
        elif len(record.images) > 1 and not record.messages:
            what = f"captions of {len(record.images)} pictures at once"
            yield BadRow("image_count", what, "a caption describes one picture: write a row for each")
        if record.messages and record.marks != len(record.images):
            hint = f"write one {IMAGE_MARK} per picture where it is shown"
            what = f"{counted(len(record.images), 'picture')} but {counted(record.marks, f'{IMAGE_MARK} mark')}"
            yield BadRow("image_count", what, hint)
        for image in record.images:
            if isinstance(image, FileImage) and image.path != image.path.strip():
                what = f"picture {quoted(image.path)} has whitespace around its path"
                yield BadRow("whitespace", what, "take the whitespace away")
                continue
            try:
                root.check(image, decode=self.decode)
            except BadRow as bad:
                yield bad


class SeenIds:
    """Which ids have been used; keeps 64 bits of each, so that millions fit (two in a billion billion collide)."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def add(self, id: str) -> bool:
        """Remember an id; False if it was there already."""
        digest = hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        before = len(self._seen)
        self._seen.add(int.from_bytes(digest, "little"))
        return len(self._seen) > before


def examine(reader: Reader, root: ImageRoot, checks: Checks) -> Iterator[tuple[Record | None, list[Issue]]]:
    """Every record of a reader with all its issues, those among records included (ids used twice).

    Yields:
        (record, issues) per row; (None, issues) for a row that is no record, or for the file as a whole.
    """
    seen = SeenIds()
    rows = 0
    for found in reader.examine():
        rows += 1
        if isinstance(found, Issue):
            yield None, [found]
            continue
        issues = list(checks(found, root))
        if found.id is not None and not seen.add(found.id):
            issues.append(duplicate_id(found))
        yield found, issues
    if not rows:
        bad = BadRow("empty_file", "the file holds no record", "fill the file, or leave it out")
        yield None, [bad.at(Where(str(reader.path)))]


def duplicate_id(record: Record) -> Issue:
    """The issue of an id that an earlier record has."""
    bad = BadRow("duplicate_id", "an earlier record has the same id", "give every record an id of its own")
    return bad.at(record.source, record.id)


def _name_faults(record: Record) -> Iterator[BadRow]:
    if record.id is not None and record.id != record.id.strip():
        what = f"the id {quoted(record.id)} has whitespace around it"
        yield BadRow("whitespace", what, "take the whitespace away")


def _turn_faults(record: Record) -> Iterator[BadRow]:
    """Roles and texts: an optional system turn, then user and assistant in turn, the assistant last."""
    for number, caption in enumerate(record.captions, 1):
        if IMAGE_MARK in caption:
            yield BadRow("image_count", f"caption {number} holds the mark {IMAGE_MARK}", "take it out of the caption")
    if not record.messages:
        if not any(caption.strip() for caption in record.captions):
            what = "the record has neither a conversation nor a caption"
            what += ": the picture has no objects to list" if "boxes" in record.meta else ""
            yield BadRow("no_text", what, "write one, or leave it out")
        return
    roles = [message.role for message in record.messages]
    if "assistant" not in roles:
        yield BadRow("no_assistant", "no turn is the assistant's", "add the answer, or leave the record out")
    else:
        yield from _order_faults(roles)
    for number, message in enumerate(record.messages, 1):
        if message.role == "assistant" and not message.text.strip():
            yield BadRow(
                "empty_assistant", f"turn {number}, the assistant's, is empty", "write the answer, or leave it out"
            )
        if message.role == "assistant" and IMAGE_MARK in message.text:
            what = f"turn {number}, the assistant's, shows a picture"
            yield BadRow("image_count", what, f"write {IMAGE_MARK} in the user's turn, where the picture is shown")


def _order_faults(roles: list[str]) -> Iterator[BadRow]:
    """The first turn whose role is not the one that should follow."""
    first = 1 if roles[0] == "system" else 0
    hint = "let user and assistant take turns, the user first and the assistant last"
    for number, role in enumerate(roles[first:], first):
        wanted = "user" if (number - first) % 2 == 0 else "assistant"
        if role != wanted:
            what = f"turn {number + 1} is the {role}'s where the {wanted}'s should be"
            yield BadRow("role_order", what, hint)
            return
    if roles[-1] != "assistant":
        yield BadRow("role_order", f"turn {len(roles)}, the last, is the {roles[-1]}'s", hint)


def _length_faults(record: Record, tokens: TokenCounter) -> Iterator[BadRow]:
    layout, limit = tokens.layout(record), tokens.limit
    if layout.tokens <= limit:
        return
    long = f"of {layout.tokens:,} tokens the limit of {limit:,}"
    hint = "shorten the row, show fewer pictures, or raise the limit"
    if layout.images_end > limit:
        yield BadRow("cut_images", f"{long} would cut a picture", hint)
    if layout.first_label >= limit:
        yield BadRow("no_labels", f"{long} would leave no answer to learn from", hint)
    if layout.images_end <= limit and layout.first_label < limit:
        yield BadRow("too_long", f"{long} would cut an answer", hint)
