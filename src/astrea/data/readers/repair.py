"""Repairs of a row that need no guessing."""

from __future__ import annotations

from typing import Any

from astrea.data.readers.reader import Row
from astrea.data.readers.record import IMAGE_MARK


def repair_row(row: Row, format: str) -> Row:
    """A copy of a row whose id, roles and picture paths have no whitespace around them and whose only picture has its
    mark. What is of a wrong type is left as it is.

    Args:
        row: as it was read.
        format: one of the names of `astrea.data.readers.formats.FORMS`.
    """
    row = dict(row)
    if isinstance(row.get("id"), str):
        row["id"] = row["id"].strip()
    for name in ("image", "images"):
        if name in row:
            row[name] = _stripped_images(row[name])
    turns = {"llava": ("conversations", "from"), "messages": ("messages", "role")}
    if format in turns:
        name, role = turns[format]
        row[name] = _stripped_roles(row.get(name), role)
    elif format == "prompt":
        for name in ("prompt", "completion"):
            row[name] = _stripped_roles(row.get(name), "role")
    return _with_mark(row) if format == "llava" else row


def _stripped_images(images: Any) -> Any:
    if isinstance(images, str):
        return images.strip()
    if isinstance(images, list):
        return [_stripped_images(image) for image in images]
    if isinstance(images, dict) and isinstance(images.get("path"), str):
        return {**images, "path": images["path"].strip()}
    return images


def _stripped_roles(turns: Any, name: str) -> Any:
    if not isinstance(turns, list):
        return turns
    return [
        {**turn, name: turn[name].strip()} if isinstance(turn, dict) and isinstance(turn.get(name), str) else turn
        for turn in turns
    ]


def _with_mark(row: Row) -> Row:
    """A LLaVA row with the mark of its only picture before the first turn of the user, if no turn has any."""
    turns, image = row.get("conversations"), row.get("image", row.get("images"))
    one = isinstance(image, (str, dict)) or (isinstance(image, list) and len(image) == 1)
    if not one or not isinstance(turns, list):
        return row
    said = [turn.get("value") if isinstance(turn, dict) else None for turn in turns]
    if any(not isinstance(text, str) or IMAGE_MARK in text for text in said):
        return row
    for place, turn in enumerate(turns):
        if turn.get("from") in ("human", "user"):
            first = {**turn, "value": f"{IMAGE_MARK}\n{turn['value']}"}
            return {**row, "conversations": [*turns[:place], first, *turns[place + 1 :]]}
    return row
