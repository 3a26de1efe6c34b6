"""Places in a recipe, and how they and their values are written in messages."""

from __future__ import annotations

import json
from typing import Any

Trail = tuple[str | int, ...]
"""Where a value sits: ("experts", "clip", "layers", 0)."""

WORDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
"""What pydantic's kinds of problems say was expected."""


def dotted(trail: Trail) -> str:
    """As a user writes it: experts.clip.layers.0."""
    return ".".join(str(part) for part in trail)


def inside(data: Any, part: str | int) -> Any:
    """What data has under a key or an index, or None."""
    try:
        return data[part]
    except (KeyError, IndexError, TypeError):
        return None


def short(value: Any) -> str:
    """A value as JSON has it (text as Python has it), cut at 80 characters."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
