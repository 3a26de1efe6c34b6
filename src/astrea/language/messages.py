"""Conversations as people write them -> turns that a chat template may be given, and the pictures they show.

Everything that has no meaning here is an error rather than left out: a part of an unknown kind would otherwise vanish
without a word.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from astrea.common.call_options import reads
from astrea.common.errors import AstreaError, shortened
from astrea.language.control_tokens import ControlTokens

ROLES = ("system", "user", "assistant")
TEXT = ("text", "input_text", "output_text")
PICTURE = ("image", "image_url", "input_image")
PICTURE_KEYS = ("image", "image_url", "url", "path", "base64")
FORM = 'write messages as {"role": "user" | "assistant" | "system", "content": a text or a list of parts}'
PARTS = 'a part is {"type": "text", "text": ...} or {"type": "image", "image": ...}'


def several(conversation: Any) -> tuple[list[Any], bool]:
    """One conversation or a batch of them, as a list of conversations; and whether it was a batch.

    Raises:
        AstreaError: it is neither.
    """
    conversation = getattr(conversation, "messages", conversation)
    if not isinstance(conversation, (list, tuple)) or not conversation:
        what = "there are no messages" if conversation in ([], ()) else f"messages are a {type(conversation).__name__}"
        raise AstreaError(what, FORM)
    if isinstance(conversation[0], Mapping):
        return [conversation], False
    return [getattr(one, "messages", one) for one in conversation], True


def read_conversation(
    conversation: Any, control: ControlTokens, template: str, name: str = ""
) -> tuple[list[dict[str, Any]], list[Any]]:
    """The turns of one conversation, with control tokens of its texts broken up, and its pictures in reading order.

    Args:
        conversation: mappings with ``role`` and ``content``, which is a text, or parts: ``text``; ``image`` with the
            picture (see `astrea.data.image_sources.read_image`) under ``image``, ``url``, ``path`` or ``base64``, or
            with none, if the pictures are given elsewhere; ``image_url`` with a URL or ``{"url": ...}``.
        template: the chat template; other keys of a message go to it if it reads them.
        name: what errors put before the number of a message.

    Returns:
        The turns, where a picture is ``{"type": "image"}``; and what was given as pictures.

    Raises:
        AstreaError: it cannot be read; names the message.
    """
    if not isinstance(conversation, Sequence) or isinstance(conversation, str) or not conversation:
        raise AstreaError(f"{name}there are no messages", FORM)
    turns: list[dict[str, Any]] = []
    pictures: list[Any] = []
    for number, message in enumerate(conversation, 1):
        label = f"{name}message {number}"
        if not isinstance(message, Mapping):
            raise AstreaError(f"{label} is a {type(message).__name__}", FORM)
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            hint = 'write it as "system"' if role == "developer" else f"the roles are {', '.join(ROLES)}"
            raise AstreaError(f"{label} has the role {shortened(repr(role))}", hint)
        more = _other_keys(message, control, template, label)
        turns.append({**more, "role": role, "content": _content(content, control, pictures, label)})
    return turns, pictures


def _content(content: Any, control: ControlTokens, pictures: list[Any], label: str) -> str | list[dict[str, Any]]:
    """A message's content; its pictures are put behind ``pictures``."""
    if isinstance(content, str):
        return control.escape(content)
    if not isinstance(content, (list, tuple)):
        raise AstreaError(f"{label} has a content of type {type(content).__name__}", FORM)
    parts: list[dict[str, Any]] = []
    for part in content:
        part = {"type": "text", "text": part} if isinstance(part, str) else part
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in TEXT and isinstance(part.get("text"), str):
            parts.append({"type": "text", "text": part["text"]})
        elif kind in PICTURE:
            pictures += _picture(part, label)
            parts.append({"type": "image"})
        elif kind in TEXT:
            raise AstreaError(f"{label} has a text part without a text", PARTS)
        else:
            what = shortened(repr(kind)) if isinstance(part, Mapping) else type(part).__name__
            raise AstreaError(f"{label} has a part of type {what}", PARTS)
    return _escaped(parts, control)


def _escaped(parts: list[dict[str, Any]], control: ControlTokens) -> list[dict[str, Any]]:
    """Control tokens broken up in all texts together: templates put them side by side, where "<im" and "age>" meet."""
    texts = [part for part in parts if part["type"] == "text"]
    joined = "".join(part["text"] for part in texts)
    if joined and control.escape(joined) != joined:
        for part in texts:
            part["text"] = control.escape(part["text"])
        if control.find("".join(part["text"] for part in texts)):
            for part in texts[1:]:
                part["text"] = " " + part["text"]
    return parts


def _picture(part: Mapping[str, Any], label: str) -> list[Any]:
    """What a part has for a picture: nothing, or one."""
    given = [(key, part[key]) for key in PICTURE_KEYS if part.get(key) is not None]
    if len(given) > 1:
        keys = ", ".join(key for key, _ in given)
        raise AstreaError(f"{label} has a picture with {keys}", "give one of them")
    if not given:
        if part["type"] != "image":
            raise AstreaError(f"{label} has a part {part['type']} without a URL", PARTS)
        return []
    key, value = given[0]
    if isinstance(value, Mapping) and "url" in value:
        value = value["url"]
    if key == "base64" and isinstance(value, str) and value[:5].lower() != "data:":
        value = f"data:image/unknown;base64,{value}"
    return [value]


def _other_keys(message: Mapping[str, Any], control: ControlTokens, template: str, label: str) -> dict[str, Any]:
    """What a message has beside role and content, if the template reads it."""
    more = {key: value for key, value in message.items() if key not in ("role", "content") and value not in (None, [])}
    unread = [str(key) for key in more if not reads(template, str(key))]
    if {"tool_calls", "tool_call_id"} & set(unread):
        raise AstreaError(f"{label} calls a tool, and the chat template has no place for it", "leave it out")
    if unread:
        warnings.warn(
            f"{label}: {shortened(', '.join(unread))}: the chat template does not read this; it is left out",
            stacklevel=2,
        )
    return {str(key): escaped(value, control) for key, value in more.items() if str(key) not in unread}


def escaped(value: Any, control: ControlTokens, depth: int = 8) -> Any:
    """Any value with the control tokens of its texts broken up.

    Raises:
        AstreaError: it is nested deeper than ``depth``.
    """
    if isinstance(value, str):
        return control.escape(value)
    if isinstance(value, (Mapping, list, tuple)) and not depth:
        raise AstreaError("a value for the chat template is nested too deeply", "give it flat")
    if isinstance(value, Mapping):
        return {escaped(k, control, depth - 1): escaped(v, control, depth - 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [escaped(one, control, depth - 1) for one in value]
    return value
