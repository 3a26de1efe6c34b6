"""Stopping between two steps when somebody asks, and saying how to go on."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from astrea.common.interrupts import ASKS, acknowledge


class Interrupted(Exception):
    """Training was asked to stop, and has saved where it is."""


def how_to_go_on(folder: Path) -> str:
    """The command that continues a run."""
    return f"go on with: astrea train --resume {shlex.quote(str(folder))}"


@contextmanager
def stop_on_signal(*, tells: bool = True) -> Iterator[Callable[[], bool]]:
    """While open, SIGINT and SIGTERM ask for a stop at the next step's end; a second one stops at once.

    Args:
        tells: say so when it happens; of several processes one should.
    """
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        if tells:
            acknowledge("stopping after this step, with a checkpoint; again to stop at once")

    try:
        before = {number: signal.signal(number, ask) for number in ASKS}
    except ValueError:  # not in the main thread: nothing to catch, the caller's own handling stays
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
