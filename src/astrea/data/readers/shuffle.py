"""In which order one source gives its records in one pass over them: every record once, as a function of the seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from astrea.data.readers.issues import Issue
from astrea.data.readers.permutation import Permutation
from astrea.data.readers.record import Record
from astrea.data.readers.shards import ShardReader
from astrea.data.readers.tables import KEPT_GROUPS

WINDOW = KEPT_GROUPS
"""How many groups (Parquet row groups) are shuffled into each other."""


class GroupedOrder:
    """A shuffle that reads groups one window after another, so that each group is read about once a pass.

    Groups come in a random order; within each window of `WINDOW` groups all records are shuffled. One group alone is
    simply shuffled.

    Args:
        sizes: records per group.
        key: decides the order.
    """

    def __init__(self, sizes: Sequence[int], *key: object) -> None:
        self._key = key
        self._firsts = np.cumsum([0, *sizes])[:-1]  # of each group, in the file
        self._groups = Permutation(len(sizes), *key, "groups")(np.arange(len(sizes)))
        self._ends = np.cumsum(np.asarray(sizes)[self._groups])  # of each group, in the pass

    def __call__(self, place: int) -> int:
        """The number of the record that stands at ``place`` of the pass."""
        window = int(np.searchsorted(self._ends, place, side="right")) // WINDOW
        last = min((window + 1) * WINDOW, len(self._ends)) - 1
        start = int(self._ends[window * WINDOW - 1]) if window else 0
        inside = Permutation(int(self._ends[last]) - start, *self._key, "window", window)(place - start)
        group = int(np.searchsorted(self._ends, start + inside, side="right"))
        return int(self._firsts[self._groups[group]]) + start + inside - (int(self._ends[group - 1]) if group else 0)


def stream_order(reader: ShardReader, buffer: int, *key: object) -> Iterator[Record | Issue]:
    """One pass over shards: the shards in a random order, their samples shuffled through a buffer.

    Each sample that arrives takes the place of a random one in the buffer, which is given out; at the end the buffer is
    given out in a random order. The order is a function of the key alone.

    Args:
        buffer: how many samples wait, at least 1.
        key: decides the order.
    """
    shards = Permutation(len(reader.paths), *key, "shards")
    waiting: list[Record | Issue] = []
    # A million draws of a slot, then again from the first: a permutation is a random function that needs no state.
    slots = Permutation(1 << 20, *key, "slots")
    arrived = 0
    for place in range(len(reader.paths)):
        for found in reader.shard(shards(place)):
            if len(waiting) < buffer:
                waiting.append(found)
                continue
            slot = slots(arrived % slots.size) % buffer
            arrived += 1
            yield waiting[slot]
            waiting[slot] = found
    if waiting:
        rest = Permutation(len(waiting), *key, "rest")
        yield from (waiting[rest(place)] for place in range(len(waiting)))
