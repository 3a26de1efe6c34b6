"""Reading the fields of a row without trusting any of them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, TypeGuard

from astrea.data.readers.issues import BadRow, quoted
from astrea.data.readers.record import IMAGE_MARK, ROLES, FileImage, ImageRef, InlineImage, MemberImage

MAX_IMAGES = 1024
"""The most pictures of one record."""

_ROLES = {role: role for role in ROLES} | {"human": "user", "gpt": "assistant", "developer": "system"}


def text_of(value: Any, name: str) -> str:
    """A text.

    Raises:
        BadRow: it is something else, or holds halves of characters.
    """
    if not isinstance(value, str):
        raise BadRow("wrong_type", f"{name!r} is {kind_of(value)}, not text", f"write {name!r} as text")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            what = f"{name!r} holds half of a character (a lone \\ud800..\\udfff)"
            raise BadRow("wrong_type", what, "write whole characters") from None
    return value


def is_id(value: Any) -> TypeGuard[int | str]:
    """Whether a value can name something: text, or a whole number."""
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def id_of(row: Mapping[str, Any]) -> str | None:
    """The row's id as text; None if it has none.

    Raises:
        BadRow: it is neither text nor a whole number.
    """
    given = row.get("id")
    if given is None:
        return None
    if isinstance(given, int) and is_id(given):
        return str(given)
    return text_of(given, "id")


def role_of(value: Any, name: str) -> str:
    """One of `ROLES`; LLaVA's ``human`` and ``gpt`` count as the user and the assistant.

    Raises:
        BadRow: unknown, or no text, or known but for whitespace around it.
    """
    said = text_of(value, name)
    if (known := _ROLES.get(said)) is not None:
        return known
    if said.strip() in _ROLES:
        raise BadRow("whitespace", f"the role {quoted(said)} has whitespace around it", "take the whitespace away")
    raise BadRow("role", f"unknown role {quoted(said)}", f"known roles: {', '.join(_ROLES)}")


def list_of(value: Any, name: str, hint: str) -> list[Any]:
    """A list.

    Raises:
        BadRow: it is something else.
    """
    if not isinstance(value, (list, tuple)):
        raise BadRow("wrong_type", f"{name!r} is {kind_of(value)}, not a list", hint)
    return list(value)


def images_of(row: Mapping[str, Any], *names: str) -> list[ImageRef]:
    """The pictures that the first of the named fields holds: one, a list of them, or none."""
    for name in names:
        given = row.get(name)
        if given is None:
            continue
        several = list(given) if isinstance(given, (list, tuple)) else [given]
        if len(several) > MAX_IMAGES:
            what = f"{name!r} holds {len(several):,} pictures; at most {MAX_IMAGES:,} are read"
            raise BadRow("wrong_type", what, "split the row")
        return [image_of(one, name) for one in several]
    return []


def image_of(value: Any, name: str) -> ImageRef:
    """One picture: a path, a ``data:`` URL, bytes, Arrow's ``{bytes, path}``, or a picture that a shard brought.

    Raises:
        BadRow: it is none of these.
    """
    if isinstance(value, (InlineImage, MemberImage)):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return InlineImage(bytes(value))
    if isinstance(value, Mapping):
        data, path = value.get("bytes"), value.get("path")
        if isinstance(data, (bytes, bytearray, memoryview)):
            return InlineImage(bytes(data), path if isinstance(path, str) else "")
        if data is None and path is not None:
            return image_of(path, f"{name}.path")
        raise BadRow("wrong_type", f"{name!r} holds neither bytes nor a path", "write {bytes, path} with one of them")
    path = text_of(value, name)
    return _from_data_url(path, name) if path[:5].lower() == "data:" else FileImage(path)


def _from_data_url(url: str, name: str) -> InlineImage:
    head, comma, body = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        what = f"{name!r} is a data: URL without base64"
        raise BadRow("image_corrupt", what, "write it as data:image/png;base64,...")
    try:
        return InlineImage(base64.b64decode(body, validate=True))
    except (binascii.Error, ValueError):
        what = f"{name!r} is a data: URL whose base64 is damaged"
        raise BadRow("image_corrupt", what, "write the picture again") from None


def content_of(value: Any, name: str) -> tuple[str, list[ImageRef]]:
    """A message's content, either text or a list of parts.

    Parts are ``{type: text, text}``, ``{type: image_url, image_url: {url}}``, ``{type: image, image|path|url}``, and
    ``{type: image}`` for the next one of the row's own pictures. They are joined by a newline where neither side
    brings whitespace or punctuation of its own.

    Returns:
        The text with its marks, and the pictures that the parts bring.

    Raises:
        BadRow: something is of a wrong type.
    """
    if isinstance(value, str):
        return text_of(value, name), []
    text = ""
    images: list[ImageRef] = []
    hint = 'write text, or parts such as {"type": "text", "text": "..."}'
    for number, part in enumerate(list_of(value, name, hint)):
        here = f"{name}[{number}]"
        if not isinstance(part, Mapping):
            raise BadRow("wrong_type", f"{here!r} is {kind_of(part)}, not an object", hint)
        kind = part.get("type")
        if kind == "text":
            text = _joined(text, text_of(part.get("text"), f"{here}.text"))
        elif kind in ("image", "image_url"):
            image = _part_image(part, kind, here)
            text = _joined(text, IMAGE_MARK)
            images += [] if image is None else [image]
        else:
            what = f"{here!r} has the unknown type {quoted(kind)}"
            raise BadRow("wrong_type", what, "known types: text, image, image_url")
    return text, images


def _part_image(part: Mapping[str, Any], kind: str, here: str) -> ImageRef | None:
    """The picture that a part brings, or None if it only marks a place."""
    for key in (kind, "image", "url", "path"):
        given = part.get(key)
        if given is None:
            continue
        if key == "image_url" and isinstance(given, Mapping):
            return image_of(given.get("url"), f"{here}.image_url.url")
        return image_of(given, f"{here}.{key}")
    if kind == "image_url":
        raise BadRow("wrong_type", f"{here!r} has no URL", 'write {"type": "image_url", "image_url": {"url": ...}}')
    return None


def _joined(left: str, right: str) -> str:
    """Two parts behind each other, apart by a newline unless one of them says how they meet."""
    meets = not left or not right or left[-1].isspace() or right[0].isspace()
    return left + right if meets or left[-1] in "([{" or right[0] in ".,;:?!)]}" else f"{left}\n{right}"


def kind_of(value: Any) -> str:
    """What a value is, in words for people."""
    if value is None:
        return "missing"
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")
