"""Formats in which one row is one record: LLaVA, messages (also with parts), prompt and completion, captions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astrea.common.terminal import counted
from astrea.data.readers.fields import (
    content_of,
    id_of,
    image_of,
    images_of,
    kind_of,
    list_of,
    role_of,
    text_of,
)
from astrea.data.readers.issues import BadRow
from astrea.data.readers.reader import Form, Row
from astrea.data.readers.record import IMAGE_MARK, ImageRef, Message, Record, Where


def llava(row: Row, where: Where) -> Record:
    """``{id, image: path | [paths], conversations: [{from: human | gpt, value: "<image>\\n..."}]}``."""
    turns = []
    hint = 'write "conversations" as a list of {"from": "human" or "gpt", "value": "..."}'
    for number, turn in enumerate(list_of(row.get("conversations"), "conversations", hint)):
        here = f"conversations[{number}]"
        if not isinstance(turn, Mapping):
            raise BadRow("wrong_type", f"{here!r} is {kind_of(turn)}, not an object", hint)
        turns.append(Message(role_of(turn.get("from"), f"{here}.from"), text_of(turn.get("value"), f"{here}.value")))
    return Record(id_of(row), where, tuple(images_of(row, "image", "images")), tuple(_with_system(row, turns)))


def messages(row: Row, where: Where) -> Record:
    """``{messages: [{role, content}], image | images}``; content is text or a list of parts (see `content_of`).

    If the row brings pictures and no message has a place for one, they stand before the first user's turn, as TRL does
    it.
    """
    hint = 'write "messages" as a list of {"role": "user" or "assistant", "content": "..."}'
    return _chat(row, where, list_of(row.get("messages"), "messages", hint), "messages")


def prompt(row: Row, where: Where) -> Record:
    """``{prompt, completion, image | images}``, each either text or a list of messages."""
    turns: list[Any] = []
    for name, role in (("prompt", "user"), ("completion", "assistant")):
        said = row.get(name)
        turns += [{"role": role, "content": said}] if isinstance(said, str) else _list(said, name)
    return _chat(row, where, turns, "turns")


def captions(row: Row, where: Where) -> Record:
    """``{image, caption: text | [texts]}``, as the files of retrieval benchmarks have it."""
    if row.get("image") is None:
        raise BadRow("wrong_type", "'image' is missing", 'write {"image": "...", "caption": ["..."]}')
    given = row.get("caption")
    given = [given] if isinstance(given, str) else list_of(given, "caption", "write one caption or a list of them")
    texts = tuple(text_of(caption, f"caption[{number}]") for number, caption in enumerate(given))
    return Record(id_of(row), where, (image_of(row["image"], "image"),), captions=texts)


FORMS: dict[str, Form] = {"llava": llava, "messages": messages, "prompt": prompt, "retrieval": captions}
FIELDS = {
    "llava": ("conversations",),
    "messages": ("messages",),
    "prompt": ("prompt", "completion"),
    "retrieval": ("image", "caption"),
}
"""The fields by which a format is known."""


def form_of(row: Row) -> str | None:
    """The name of the format that a row is in, or None."""
    return next((name for name, fields in FIELDS.items() if all(field in row for field in fields)), None)


def _chat(row: Row, where: Where, turns: list[Any], name: str) -> Record:
    """Messages whose pictures come from their parts or from the row's own list."""
    own = images_of(row, "images", "image")
    parsed: list[Message] = []
    brought: list[ImageRef] = []
    for number, turn in enumerate(turns):
        here = f"{name}[{number}]"
        if not isinstance(turn, Mapping):
            hint = 'write each as {"role": ..., "content": ...}'
            raise BadRow("wrong_type", f"{here!r} is {kind_of(turn)}, not an object", hint)
        text, images = content_of(turn.get("content"), f"{here}.content")
        parsed.append(Message(role_of(turn.get("role"), f"{here}.role"), text))
        brought += images
    if own and brought:
        what = f"the row has {counted(len(own), 'picture')} of its own and its messages bring {len(brought)} more"
        raise BadRow("image_count", what, 'give pictures either in "images" or in the messages')
    record = Record(id_of(row), where, tuple(own or brought), tuple(_with_system(row, parsed)))
    if own and record.marks == 0:
        return _marked(record)
    return record


def _with_system(row: Row, turns: list[Message]) -> list[Message]:
    """The turns behind the row's own ``system`` text, if it has one.

    Raises:
        BadRow: there is a system turn too, of other words.
    """
    said = row.get("system")
    if said is None or said == "":
        return turns
    first = Message("system", text_of(said, "system"))
    if turns and turns[0].role == "system":
        if turns[0].text.strip() != first.text.strip():
            what = "the row has a 'system' text and a system turn with other words"
            raise BadRow("role_order", what, "keep one of them")
        return turns
    return [first, *turns]


def _marked(record: Record) -> Record:
    """Every picture's mark before the first user's turn."""
    turns = list(record.messages)
    first = next((place for place, turn in enumerate(turns) if turn.role == "user"), None)
    if first is not None:
        turns[first] = Message("user", f"{IMAGE_MARK}\n" * len(record.images) + turns[first].text)
    return Record(record.id, record.source, record.images, tuple(turns))


def _list(said: Any, name: str) -> list[Any]:
    return list_of(said, name, f"write {name!r} as text or as a list of messages")
