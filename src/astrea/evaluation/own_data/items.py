"""Held-out records as items: one for each answer that a record gives, and one for the captions of a picture."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from PIL import Image

from astrea.data.packing import CAPTION_PROMPT
from astrea.data.readers.conversation import called, messages_of, texts_of
from astrea.data.readers.issues import NOTES, Issue
from astrea.data.readers.mixture import Sample, Source
from astrea.data.readers.record import IMAGE_MARK, ROLES, Record
from astrea.data.readers.trainable import Trainable
from astrea.evaluation.metrics.vqa import normalise_answer

KINDS = ("yes/no", "number", "phrase", "text", "caption")
"""Kinds of answers, each scored by itself, in the order of the tables."""

LONG = ("text", "caption")
"""Kinds that are scored by how alike sentences are; the others by whether they are the same."""

PHRASE = 4
"""Words of the longest answer that counts as a phrase."""


@dataclass(frozen=True, slots=True)
class Item:
    """Something to be answered.

    Args:
        name: the file, line and id of its record. kind: one of `KINDS`. turns: the conversation up to the answer, with
            ``<image>`` marks. truths: what counts as the answer; several for captions. sample: its record.
    """

    name: str
    kind: str
    turns: tuple[dict[str, str], ...]
    truths: tuple[str, ...]
    sample: Sample

    @property
    def question(self) -> str:
        """The last turn of the user, without marks."""
        return self.turns[-1]["content"].replace(IMAGE_MARK, "").strip()

    def conversation(self, pictures: Sequence[Image.Image] | None) -> list[dict[str, Any]]:
        """For the chat template; None = blind, with every picture taken out."""
        left = list(pictures or ())
        made: list[dict[str, Any]] = []
        for turn in self.turns:
            parts: list[dict[str, Any]] = []
            for text in re.split(f"({re.escape(IMAGE_MARK)})", turn["content"]):
                if text == IMAGE_MARK and pictures is not None:
                    parts.append({"type": "image", "image": left.pop(0)})
                elif text != IMAGE_MARK and text.strip():
                    parts.append({"type": "text", "text": text.strip("\n")})
            made.append({"role": turn["role"], "content": parts or [{"type": "text", "text": CAPTION_PROMPT}]})
        return made


def items_of(
    sources: Sequence[Source], check: Trainable, on_issue: Callable[[Issue], None], limit: int | None = None
) -> Iterator[Item]:
    """The items of all records that training could learn from, in their order; the others are reported.

    Args:
        limit: of records of each source; None = all.
    """
    for number, source in enumerate(sources):
        records = islice(source.reader.examine(), len(source.reader) if limit is None else limit)
        for position, found in enumerate(records):
            issues = [found] if isinstance(found, Issue) else list(check(found, source.root))
            for issue in issues:
                on_issue(issue)
            if isinstance(found, Record) and all(issue.kind in NOTES for issue in issues):
                yield from items_of_record(Sample(0, position, number, found, source.root))


def items_of_record(sample: Sample) -> Iterator[Item]:
    """What a record asks: every answer of its conversation, or else its captions."""
    record, name = sample.record, called(sample.record)
    turns = messages_of(record)
    if not record.messages:
        yield Item(name, "caption", tuple(turns[:1]), tuple(texts_of(record)), sample)
        return
    for at, turn in enumerate(turns):
        if turn["role"] == ROLES[2] and at and turns[at - 1]["role"] == ROLES[1] and turn["content"].strip():
            yield Item(name, kind_of(turn["content"]), tuple(turns[:at]), (turn["content"].strip(),), sample)


def kind_of(truth: str) -> str:
    """The kind of answer that is wanted, by the right one."""
    said = normalise_answer(truth.strip().rstrip("."))
    if said in ("yes", "no"):
        return "yes/no"
    if re.fullmatch(r"[-+]?\d+(?:[.,]\d+)*", said):
        return "number"
    return "phrase" if len(truth.split()) <= PHRASE else "text"
