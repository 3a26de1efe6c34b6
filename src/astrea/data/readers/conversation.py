"""What training reads of a record: a conversation, sentences about its picture, and what the picture is called."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from astrea.data.packing import CAPTION_PROMPT
from astrea.data.readers.mixture import Sample
from astrea.data.readers.record import IMAGE_MARK, FileImage, InlineImage, Message, Record


def called(record: Record) -> str:
    """What messages call a record."""
    return f"{record.source} {record.id}" if record.id else str(record.source)


def texts_of(record: Record) -> list[str]:
    """Texts about a record's picture: its captions, or else its answers one after another."""
    if record.captions:
        return [caption for caption in record.captions if caption.strip()]
    answers = " ".join(message.text.strip() for message in record.messages if message.role == "assistant").strip()
    return [answers] if answers else []


def messages_of(record: Record, which: int = 0) -> list[dict[str, str]]:
    """A record's conversation; one that has captions only is asked to describe the picture."""
    messages: Sequence[Message] = record.messages
    if not messages:
        marks = IMAGE_MARK * len(record.images)
        said = texts_of(record)
        messages = [Message("user", f"{marks}{CAPTION_PROMPT}"), Message("assistant", said[which] if said else "")]
    return [{"role": message.role, "content": message.text} for message in messages]


def picture_id(sample: Sample) -> int:
    """A number that two samples share only if their first picture (or, without one, the record) is the same."""
    image = sample.record.images[0] if sample.record.images else None
    if isinstance(image, InlineImage):
        known = image.data
    elif isinstance(image, FileImage):
        known = f"{sample.root.real}/{image.path}".encode("utf-8", "surrogatepass")
    else:
        known = repr(image or sample.record.source).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(known, digest_size=8).digest(), "little") >> 1
