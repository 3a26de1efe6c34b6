"""Names of many files in one, as a shell expands them: ``{000..011}.tar`` and ``{train,more}.jsonl``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from astrea.common.errors import AstreaError
from astrea.data.readers.issues import quoted

MOST = 100_000
"""The most names that one pattern may stand for."""

_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")


def expanded(pattern: str) -> list[str]:
    """The names that a pattern stands for, in its order; a pattern without braces stands for itself.

    A range of numbers keeps the leading zeros of its ends. Braces that hold neither a comma nor a range stay.

    Raises:
        AstreaError: there are more than `MOST`.
    """
    names = list(islice(_names(pattern), MOST + 1))
    if len(names) > MOST:
        raise AstreaError(f"{quoted(pattern)} names more than {MOST:,} files", "name fewer")
    return names


def _names(pattern: str) -> Iterator[str]:
    for start, char in enumerate(pattern):
        parts = _parts(pattern, start + 1) if char == "{" else []
        if choices := _choices(parts):
            stop = start + sum(map(len, parts)) + len(parts) + 1
            for choice in choices:
                yield from _names(pattern[:start] + choice + pattern[stop:])
            return
    yield pattern


def _parts(pattern: str, start: int) -> list[str]:
    """What the commas between the brace before ``start`` and its closing one divide; [] if it is not closed."""
    depth, parts, begin = 0, list[str](), start
    for place in range(start, len(pattern)):
        char = pattern[place]
        if depth == 0 and char in ",}":
            parts.append(pattern[begin:place])
            begin = place + 1
            if char == "}":
                return parts
        depth += (char == "{") - (char == "}")
    return []


def _choices(parts: list[str]) -> Iterable[str]:
    """What one pair of braces stands for; nothing where it means nothing."""
    if len(parts) == 1 and (ends := _RANGE.fullmatch(parts[0])):
        first, last = int(ends[1]), int(ends[2])
        step = 1 if last >= first else -1
        width = max(map(len, ends.groups())) if any(end.startswith("0") for end in ends.groups()) else 0
        return (f"{number:0{width}}" for number in range(first, last + step, step))
    return parts if len(parts) > 1 else ()
