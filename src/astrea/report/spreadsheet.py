"""Tables of the page as CSV, inside the page itself: a link that a browser saves as a file; no other file is needed."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable, Sequence

from astrea.report.markup import escape


def csv_link(name: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A link that saves ``name`` (markup).

    Args:
        heads: the first line. rows: numbers, text, and None for what was not measured (an empty field).
    """
    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\r\n")
    writer.writerow(heads)
    writer.writerows([_field(value) for value in row] for row in rows)
    data = base64.b64encode(held.getvalue().encode("utf-8", "replace")).decode("ascii")
    return (
        f'<p class="note"><a download="{escape(name)}" href="data:text/csv;charset=utf-8;base64,{data}">'
        f"{escape(name)}</a>: this table for a spreadsheet</p>"
    )


def _field(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    # A spreadsheet would run text that begins like a formula, and what models and data say may be anybody's.
    if isinstance(value, str) and value.lstrip()[:1] in {"=", "+", "-", "@"}:
        return f"'{value}"
    return value
