"""The filters, tests and methods that chat templates have, each with what it costs.

Everything that is not listed is not there: a filter such as ``center`` or ``slice`` writes as much as it is told to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS as DEFAULT_FILTERS
from jinja2.tests import TESTS as DEFAULT_TESTS

from astrea.language import template_work as work

MOST_INDENT = 64

Function = Callable[..., Any]


def _counted(values: Iterator[Any]) -> Iterator[Any]:
    for value in values:
        work.spend(16)  # a filter or a test of its own for each
        yield value


def _paid(function: Function, pay: Function, first: int | None = None) -> Function:
    """The function, after ``pay`` has been called on its first argument; its result is paid for by size."""
    place = first if first is not None else int(hasattr(function, "jinja_pass_arg"))

    @wraps(function)
    def paid(*args: Any, **kwargs: Any) -> Any:
        pay(args[place])
        # An error may quote what it was given.
        for other in (*args[place + 1 :], *kwargs.values()):
            work.spend_whole(other)
        found = function(*args, **kwargs)
        work.spend_elements(found)
        return found

    return paid


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """As transformers has it, and not as Jinja does, which escapes for HTML."""
    margin = _margin(indent)
    # Every element may stand on a line of its own, as deep as it lies.
    work.spend_whole(value, 6 + margin * 8)
    for text in separators or ():
        work.spend_whole(value, len(text))
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _margin(width: Any) -> int:
    size = len(width) if isinstance(width, str) else width or 0
    if not isinstance(size, int) or size > MOST_INDENT:
        raise SecurityError(f"an indent of {width!r:.40}; at most {MOST_INDENT} are written")
    return max(size, 0)


def _string(value: Any) -> str:
    work.spend_whole(value)
    return str(value)


def _indent(text: Any, width: Any = 4, first: bool = False, blank: bool = False) -> str:
    text = _string(text)
    work.spend((1 + text.count("\n")) * _margin(width))
    return str(DEFAULT_FILTERS["indent"](text, width, first, blank))


def _replace(text: Any, old: str, new: str, count: Any = None) -> str:
    text = _string(text)
    work.spend(text.count(old) * len(new))
    return str(text.replace(old, new) if count is None else text.replace(old, new, count))


def _join(values: Any, separator: str = "", attribute: Any = None) -> str:
    values = list(values)
    if attribute is not None:
        values = [value[attribute] for value in values]
    work.spend_whole(values)
    work.spend(len(values) * len(separator))
    return str(separator).join(map(str, values))


def _round(value: Any, precision: int = 0, method: str = "common") -> Any:
    if not -20 <= precision <= 20:
        raise SecurityError(f"round to {precision} digits")
    return DEFAULT_FILTERS["round"](value, precision, method)


def _format(text: str, *args: Any, **kwargs: Any) -> str:
    """``"{} and {name}".format(...)``; widths and attributes are left out."""
    fields = re.findall(r"\{\{|\}\}|\{(\w{0,64})\}|([{}])", text)
    if any(stray for _, stray in fields):
        raise SecurityError(f"chat templates may not format {text!r:.80}")
    for value in (*args, *kwargs.values()):
        work.spend_whole(value, len(fields))
    return text.format(*args, **kwargs)


def _widened(name: str) -> Function:
    def widened(text: str, width: int, *fill: str) -> str:
        work.spend(max(width, len(text)))
        return str(getattr(str, name)(text, width, *fill))

    return widened


def _method(kind: type, name: str, pay: Function) -> Function:
    return _paid(getattr(kind, name), pay, first=0)


def _get(value: dict[Any, Any], key: Any, default: Any = None) -> Any:
    return value.get(work.key(key), default)


def _lazy(function: Function) -> Function:
    """Filters that look at one element after another, once somebody asks for it."""
    place = int(hasattr(function, "jinja_pass_arg"))

    @wraps(function)
    def lazy(*args: Any, **kwargs: Any) -> Any:
        return function(*args[:place], _counted(iter(args[place])), *args[place + 1 :], **kwargs)

    return lazy


def _sorting(function: Function) -> Function:
    """Filters that compare elements with each other, about twenty times each."""
    place = int(hasattr(function, "jinja_pass_arg"))

    @wraps(function)
    def sorting(*args: Any, **kwargs: Any) -> Any:
        values = args[place] if isinstance(args[place], Mapping) else list(args[place])
        work.spend_whole(values, 20)
        return function(*args[:place], values, *args[place + 1 :], **kwargs)

    return sorting


LIGHT = ("default", "d", "first", "last", "length", "count", "items", "abs", "int", "float")
JINJA_TESTS: Mapping[str, Any] = DEFAULT_TESTS
EACH = ("list", "reverse")
WORDS = ("capitalize", "lower", "title", "trim", "upper")
LAZY = ("map", "select", "reject", "selectattr", "rejectattr")
WHOLE = ("dictsort", "max", "min", "sort", "unique")
FILTERS: Mapping[str, Function] = {
    **{name: _paid(DEFAULT_FILTERS[name], lambda _: work.spend(1)) for name in LIGHT},
    **{name: _lazy(DEFAULT_FILTERS[name]) for name in LAZY},
    **{name: _paid(DEFAULT_FILTERS[name], work.spend_elements) for name in EACH},
    **{name: _paid(DEFAULT_FILTERS[name], work.spend_whole) for name in WORDS},
    **{name: _sorting(DEFAULT_FILTERS[name]) for name in WHOLE},
    "indent": _indent,
    "join": _join,
    "replace": _replace,
    "round": _round,
    "safe": _string,
    "string": _string,
    "tojson": _to_json,
}
"""``safe`` means nothing: what templates write is no HTML."""


def _compared(sign: str) -> Function:
    return lambda left, right: work.compare(sign, left, right)


SIGNS = {
    "eq": ("==", "eq", "equalto"),
    "ne": ("!=", "ne"),
    "lt": ("<", "lt", "lessthan"),
    "lteq": ("<=", "le"),
    "gt": (">", "gt", "greaterthan"),
    "gteq": (">=", "ge"),
    "in": ("in",),
}
TESTS: Mapping[str, Function] = {
    **{
        name: JINJA_TESTS[name]
        for name in (
            *("boolean", "callable", "defined", "divisibleby", "even", "false", "float", "integer", "iterable"),
            *("mapping", "none", "number", "odd", "sameas", "sequence", "string", "true", "undefined"),
        )
    },
    **{name: _paid(JINJA_TESTS[name], work.spend_whole) for name in ("lower", "upper")},
    **{name: _compared(sign) for sign, names in SIGNS.items() for name in names},
}

TEXT = (
    *("capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii", "isdecimal"),
    *("isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "lower", "lstrip", "partition"),
    *("removeprefix", "removesuffix", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines"),
    *("startswith", "strip", "swapcase", "title", "upper"),
)
METHODS: Mapping[tuple[type, str], Function] = {
    **{(str, name): _method(str, name, lambda text: work.spend(len(text))) for name in TEXT},
    **{(str, name): _widened(name) for name in ("ljust", "rjust", "zfill", "center")},
    (str, "format"): _format,
    (str, "join"): lambda separator, values: _join(values, separator),
    (str, "replace"): _replace,
    **{(kind, name): _method(kind, name, work.spend_whole) for kind in (list, tuple) for name in ("index", "count")},
    **{(dict, name): _method(dict, name, lambda _: work.spend(1)) for name in ("items", "keys", "values")},
    (dict, "copy"): _method(dict, "copy", work.spend_elements),
    (dict, "get"): _get,
}
