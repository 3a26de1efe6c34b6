"""Tables of a page as CSV inside the page itself: the address of a link that a browser saves as a file."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable, Sequence


def csv_address(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as a ``data:`` address.

    Args:
        heads: the first line.
        rows: numbers, text, and None for what was not measured (an empty field).
    """
    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\r\n")
    writer.writerow([_field(head) for head in heads])
    writer.writerows([_field(value) for value in row] for row in rows)
    data = base64.b64encode(held.getvalue().encode("utf-8", "replace")).decode("ascii")
    return f"data:text/csv;charset=utf-8;base64,{data}"


def _field(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    # A spreadsheet would run text that begins like a formula, and anybody may have written what models and data say.
    if isinstance(value, str) and value.lstrip()[:1] in {"=", "+", "-", "@"}:
        return f"'{value}"
    return value
