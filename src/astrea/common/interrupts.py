"""Ctrl-C and a request to end, acknowledged at once. Only what Python brings is imported, so that it can come first."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ASKS = (signal.SIGINT, signal.SIGTERM)
USUAL = (signal.default_int_handler, signal.SIG_DFL)


def acknowledge(text: str) -> None:
    """A line on standard error, from within a signal handler."""
    # Not through Python's buffered files: one that is just being written to refuses to be entered again.
    os.write(2, f"\n{text}\n".encode())


@contextmanager
def interruptions_reported() -> Iterator[None]:
    """While open, SIGINT and SIGTERM say so and raise KeyboardInterrupt, unless the process was told to ignore them or
    has a handler of its own."""
    owner = os.getpid()

    def stop(number: int, frame: Any) -> None:
        if os.getpid() != owner:  # a child made by fork: as if it had never had this handler
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)
            return
        acknowledge("interrupted")
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in ASKS if signal.getsignal(number) in USUAL}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
