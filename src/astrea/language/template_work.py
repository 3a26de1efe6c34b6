"""What the steps of a chat template cost, and the account that they are taken from."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined

MOST_DEEP = 64
"""Levels of lists and dicts."""

MOST_NUMBER = 1 << 64
SMALL = 32
"""What it costs to write a number, or anything else that is no text and holds nothing."""

_left: ContextVar[list[int]] = ContextVar("left")
_COMPARE = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
}


class TooMuch(SecurityError):
    """A template does more than it may."""


@contextmanager
def allowed(amount: int) -> Iterator[None]:
    """Renderings inside may cost so much together."""
    token = _left.set([amount])
    try:
        yield
    finally:
        _left.reset(token)


def spend(amount: int) -> None:
    """Pay for work that is about to be done.

    Raises:
        TooMuch: there is not so much left.
    """
    left = _left.get()
    left[0] -= amount
    if left[0] < 0:
        raise TooMuch("it loops too often, or writes too much")


def spend_elements(value: Any) -> None:
    """Pay for a look at each character or element of a value, but not inside these."""
    spend(len(value) if isinstance(value, str | list | tuple | dict | range) else 1)


def spend_whole(value: Any, times: int = 1) -> None:
    """Pay for a look at everything that a value holds, at any depth. A list may hold itself twice, and so on, so this
    pays step by step."""
    if isinstance(value, str):
        spend(len(value) * times)
        return
    levels = [(value, 0)]
    while levels:
        one, depth = levels.pop()
        if depth > MOST_DEEP:
            raise TooMuch(f"it nests lists more than {MOST_DEEP} deep")
        if isinstance(one, str):
            spend((len(one) + 2) * times)
        elif isinstance(one, dict):
            spend(times)
            levels += [(inner, depth + 1) for pair in one.items() for inner in pair]
        elif isinstance(one, list | tuple):
            spend(times + len(one))
            levels += [(inner, depth + 1) for inner in one]
        else:
            spend(SMALL * times)


def number(value: Any) -> Any:
    """The value, if it is no number of hundreds of digits."""
    if isinstance(value, int) and abs(value) > MOST_NUMBER:
        raise TooMuch("it reckons with huge numbers")
    return value


def key(value: Any) -> Any:
    """The value, if it may be looked up: text or a number, which are found at once."""
    if isinstance(value, str):
        spend(len(value) // 64)
        return value
    if value is None or isinstance(value, int | float | Undefined):
        return value
    raise SecurityError(f"a {type(value).__name__} cannot be looked up")


def before_operator(sign: str, left: Any, right: Any) -> None:
    """Pay for ``left sign right``."""
    if sign == "+":
        spend(1)
        spend_elements(left)
        spend_elements(right)
    elif isinstance(left, str | list | tuple) or isinstance(right, str | list | tuple):
        times = right if isinstance(right, int) else left
        if sign != "*" or not isinstance(times, int):
            raise SecurityError(f"{sign!r} is for numbers")
        spend(1 + max(times, 0) * len(left if times is right else right))
    else:
        spend(1)
        if sign == "**" and (abs(left) > MOST_NUMBER or abs(right) > 64):
            raise TooMuch("it reckons with huge numbers")


def compare(sign: str, left: Any, right: Any) -> bool:
    """``left sign right``, paid for."""
    spend(1)
    if isinstance(left, str):
        spend(len(left) + (len(right) if isinstance(right, str) else 0))
    elif isinstance(left, list | tuple | dict):
        spend_whole(left)
        spend_whole(right)
    if sign not in ("in", "notin"):
        return bool(_COMPARE[sign](left, right))
    if isinstance(right, dict):
        key(left)
    elif isinstance(right, list | tuple | range):
        # Long texts that begin alike take a while to tell apart.
        spend(len(right) * (1 + (len(left) // 64 if isinstance(left, str) else 0)))
    elif not isinstance(right, str | Undefined):
        raise SecurityError(f"nothing is looked for in a {type(right).__name__}")
    return (left in right) == (sign == "in")
