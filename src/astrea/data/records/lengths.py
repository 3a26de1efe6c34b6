"""How long a record is for a model that is read with a chat template of marks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from astrea.data.records.check import Layout
from astrea.data.records.record import IMAGE_MARK, Record

CHARACTERS_PER_TOKEN = 16
"""A text of more characters than this per token of the limit is not tokenised; it counts as one token per so many."""


@dataclass(frozen=True)
class ChatCounter:
    """A `TokenCounter` for the layout ``<bos> picture <user> text <assistant> text <eos> ...``.

    Args:
        count: how many tokens a text has.
        picture_tokens: tokens of one picture.
        limit: the longest row in tokens.
    """

    count: Callable[[str], int]
    picture_tokens: int
    limit: int

    def layout(self, record: Record) -> Layout:
        """See `TokenCounter.layout`; a message's pictures come before its text."""
        place, images_end, first_label = 1, 0, None
        for message in record.messages:
            marks = message.text.count(IMAGE_MARK)
            place += marks * self.picture_tokens
            images_end = place if marks else images_end
            place += 1
            answers = message.role == "assistant"
            if answers and first_label is None:
                first_label = place
            place += self._tokens(message.text.replace(IMAGE_MARK, " ")) + answers
        return Layout(place, images_end, place if first_label is None else first_label)

    def _tokens(self, text: str) -> int:
        if len(text) > self.limit * CHARACTERS_PER_TOKEN:
            return len(text) // CHARACTERS_PER_TOKEN
        return self.count(text)
