"""Batches made while the step before is computed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

DEPTH = 2
"""Batches that are made ahead: one to be read next, one to hide that some take longer."""


class Prefetcher:
    """Batches in order, each made by a thread of its own before it is asked for.

    Attributes:
        waited: seconds that `next` had to wait so far.
    """

    def __init__(self, make: Callable[..., Any], wanted: Iterable[tuple[int, ...]], pool: ThreadPoolExecutor) -> None:
        self.make, self.wanted, self.pool = make, iter(wanted), pool
        self.coming: deque[Future[Any]] = deque()
        self.waited = 0.0
        self._order()

    def next(self) -> Any:
        """The next batch.

        Raises:
            Whatever making it has raised.
        """
        began = time.perf_counter()
        batch = self.coming.popleft().result()
        self.waited += time.perf_counter() - began
        self._order()
        return batch

    def _order(self) -> None:
        for wanted in self.wanted:
            self.coming.append(self.pool.submit(self.make, *wanted))
            if len(self.coming) >= DEPTH:
                return


@contextmanager
def prefetch(make: Callable[..., Any], wanted: Iterable[tuple[int, ...]]) -> Iterator[Prefetcher]:
    """``make(*arguments)`` for all the ``wanted`` arguments, in one thread and in order; the rest is given up when the
    block is left."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
    try:
        yield Prefetcher(make, wanted, pool)
    finally:
        pool.shutdown(cancel_futures=True)
