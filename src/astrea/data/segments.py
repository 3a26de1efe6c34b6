"""Whole conversations in tokens, and several of them one after another in a row.

A conversation may have several turns and several pictures. Each user turn with its answer is a *question* of its own,
with its own shares of the experts; what it asks must not be known to the answers before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from astrea.common.errors import AstreaError
from astrea.language.chat_format import ChatFormat

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Segment:
    """One conversation, ready to be put into a row; every list has one entry per token.

    ids: pictures with all their placeholders. labels: -100 where nothing is learned. weights: of the loss. questions:
    the question a token belongs to, from 1. asked: whether it is a word of that question. pictures: how many it shows.
    """

    ids: list[int]
    labels: list[int]
    weights: list[float]
    questions: list[int]
    asked: list[bool]
    pictures: int


def conversation_segment(
    chat: ChatFormat,
    messages: Sequence[Any],
    picture_tokens: int,
    weight: float,
    name: str,
    max_length: int | None,
) -> Segment:
    """See `astrea.data.packing.Packer.conversation`."""
    if not chat.tokenizer.is_fast:
        raise AstreaError(
            "the tokenizer does not tell which characters a token stands for, so answers cannot be found in a "
            "conversation",
            "use the checkpoint's fast tokenizer (tokenizer.json)",
        )
    check_messages(messages, name)
    try:
        text, said = chat.texts(messages)
    except AstreaError as error:
        raise AstreaError(f"{name}: {error.message}", error.hint) from error
    encoded = chat.encode(text)
    ends = chat.answer_ends(messages, text, encoded, said)
    length = ends[-1][1]
    labels = [-100] * length
    for first, stop in ends:
        labels[first:stop] = encoded.ids[first:stop]
    if all(label == -100 for label in labels):
        raise AstreaError(f"{name}: every label is masked, so there is nothing to learn", "give it an answer in words")
    asked = [False] * length
    for one in said:
        if one.role == "user":
            for token in encoded.touching(one.start, one.stop):
                asked[token] = encoded.ids[token] != chat.image_id
    questions = [1 + sum(token >= stop for _, stop in ends) for token in range(length)]
    grown = [
        token for token in range(length) for _ in range(picture_tokens if encoded.ids[token] == chat.image_id else 1)
    ]
    if max_length is not None and len(grown) > max_length:
        pictures = encoded.ids[:length].count(chat.image_id)
        raise AstreaError(
            f"{name} has {len(grown)} tokens ({pictures} pictures of {picture_tokens} each among them), "
            f"{len(grown) - max_length} more than the limit of {max_length}",
            "shorten it or split it, or raise the limit; pictures are never cut",
        )
    return Segment(
        [encoded.ids[t] for t in grown],
        [labels[t] for t in grown],
        [weight if labels[t] != -100 else 0.0 for t in grown],
        [questions[t] for t in grown],
        [asked[t] for t in grown],
        encoded.ids[:length].count(chat.image_id),
    )


def check_messages(messages: Sequence[Any], name: str) -> None:
    """Whether these are turns that can be learned from.

    Raises:
        AstreaError: they are not; names the turn.
    """
    hint = 'write messages as {"role": "user" | "assistant" | "system", "content": text or parts}'
    for number, message in enumerate(messages, 1):
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise AstreaError(f"{name}: turn {number} has no role of {', '.join(ROLES)}", hint)
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        for part in parts:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind not in ("text", "image", "image_url") or (kind == "text" and not isinstance(part.get("text"), str)):
                raise AstreaError(f"{name}: turn {number} has content that is neither text nor a picture", hint)
        words = "".join(str(part["text"]) for part in parts if part["type"] == "text")
        if message["role"] == "assistant":
            if not words.strip():
                raise AstreaError(f"{name}: turn {number}, an answer, is empty", "take the turn out")
            if "<image>" in words or any(part["type"] != "text" for part in parts):
                raise AstreaError(f"{name}: turn {number}, an answer, shows a picture", "show it in the user's turn")
    if not messages or messages[-1]["role"] != "assistant":
        raise AstreaError(
            f"{name}: it does not end with an answer" if messages else f"{name}: there are no messages",
            "every conversation ends with an assistant's turn: that is what is learned",
        )


def questions_apart(whole: Segment, picture_tokens: int, image_id: int) -> list[Segment]:
    """A conversation as one segment per question: all turns before it, and only this answer is learned."""
    parts = []
    for number in range(1, max(whole.questions) + 1):
        length = sum(question <= number for question in whole.questions)
        mine = [question == number for question in whole.questions[:length]]
        parts.append(
            Segment(
                whole.ids[:length],
                [label if own else -100 for label, own in zip(whole.labels, mine, strict=False)],
                [weight if own else 0.0 for weight, own in zip(whole.weights, mine, strict=False)],
                [1] * length,
                [asked and own for asked, own in zip(whole.asked, mine, strict=False)],
                whole.ids[:length].count(image_id) // picture_tokens,
            )
        )
    return parts


def joined(row: Sequence[Segment]) -> list[list[Any]]:
    """Conversations one after another: [ids, segments, labels, weights, asked, questions], numbered over the row."""
    columns: list[list[Any]] = [[], [], [], [], [], []]
    before = 0
    for number, one in enumerate(row, 1):
        numbers = [question + before for question in one.questions]
        parts: tuple[list[Any], ...] = (one.ids, [number] * len(one.ids), one.labels, one.weights, one.asked, numbers)
        for column, part in zip(columns, parts, strict=True):
            column += part
        before = max(numbers)
    return columns
