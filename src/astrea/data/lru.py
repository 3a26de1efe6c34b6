"""A dictionary that forgets: what a pass over endless data may remember of it without growing."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Remembered(Generic[Key, Value]):
    """Values by key; those that came first are forgotten first, once all together cost too much.

    Several threads may share one.

    Args:
        most: what the values may cost together.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.cost = 0
        self._kept: dict[Key, tuple[Value, int]] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._kept))

    def get(self, key: Key) -> Value | None:
        """The value of a key, None if there is none (any more)."""
        found = self._kept.get(key)
        return None if found is None else found[0]

    def put(self, key: Key, value: Value, cost: int) -> None:
        """Remember a value; one that costs more than all may together is not kept at all."""
        with self._lock:
            self._forget(key)
            if cost > self.most:
                return
            self._kept[key] = (value, cost)
            self.cost += cost
            while self.cost > self.most:
                self._forget(next(iter(self._kept)))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self.cost = 0

    def _forget(self, key: Key) -> None:
        gone = self._kept.pop(key, None)
        self.cost -= 0 if gone is None else gone[1]
