"""One row of JSON, read strictly, whatever the bytes."""

from __future__ import annotations

import json
from typing import Any

from astrea.data.readers.issues import BadRow

MAX_ROW_BYTES = 64 << 20
"""The longest row that is read. A row holds text and paths, and at times pictures as base64."""

MAX_VALUES = 1_000_000
"""The most values of a row, counted by its commas and opening brackets: parsed, a value takes up to a hundred times its
bytes."""

TOO_LONG = f"split the row, or keep its pictures in files of their own (at most {MAX_ROW_BYTES >> 20} MiB a row)"


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object in ``data``.

    Raises:
        BadRow: too long, not UTF-8, not JSON (NaN, absurd numbers and absurd nesting included), or not an object.
    """
    if len(data) > MAX_ROW_BYTES:
        raise BadRow("unreadable", f"the row has more than {MAX_ROW_BYTES:,} bytes", TOO_LONG)
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise BadRow("unreadable", f"the row has more than {MAX_VALUES:,} values", "split the row")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"byte {error.start + 1} of the row (0x{data[error.start]:02x}) is not UTF-8"
        raise BadRow("encoding", what, "save the file as UTF-8") from None
    try:
        value = json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        what = f"not valid JSON: {error.msg} at character {error.pos + 1} of the row"
        raise BadRow("unreadable", what, "correct the syntax there, or leave the row out") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or brackets without end
        what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error).split(";")[0]
        raise BadRow("unreadable", f"not valid JSON: {what}", "correct the row, or leave it out") from None
    if not isinstance(value, dict):
        kind = {list: "a list", str: "text", bool: "true or false", type(None): "null"}.get(type(value), "a number")
        raise BadRow("unreadable", f"the row is {kind}, not an object", 'write one {"key": value, ...} per row')
    return value


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")
