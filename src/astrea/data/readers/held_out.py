"""A share of data files is held out: which records teach and which measure.

Each picture falls on one side by its own bytes, and a record by its pictures. So a picture of several records, or of
several files, is never both learned from and measured on, and the sides stay the same when files are moved, reordered
or added to. A record without pictures falls by its texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from astrea.common.progress import Reporter
from astrea.data.readers.conversation import texts_of
from astrea.data.readers.issues import BadRow, Issue
from astrea.data.readers.mixture import Source
from astrea.data.readers.pictures import ImageRoot
from astrea.data.readers.reader import IndexedReader
from astrea.data.readers.record import Record
from astrea.data.readers.shards import ShardReader

LEARNED, HELD_OUT, NEITHER = 0, 1, 2
"""The sides. A record that shows pictures of both is left out, or what is measured on would be learned from."""

TRACKED = 500
"""Records between two reports of progress."""


def side_of(record: Record, root: ImageRoot, share: float) -> int:
    """The side of a record, where ``share`` of all pictures is held out.

    A record whose pictures cannot be read is on the side that is learned from: training reports what is wrong with it.
    """
    try:
        names = [root.fingerprint(image) for image in record.images]
    except BadRow:
        return LEARNED
    if not names:
        names = ["\0".join((*(message.text for message in record.messages), *texts_of(record))).encode()]
    held = {_place(name) < share for name in names}
    return NEITHER if len(held) > 1 else HELD_OUT if held == {True} else LEARNED


def _place(name: bytes) -> float:
    """Where a picture stands in 0..1, evenly spread over all of them."""
    return int.from_bytes(hashlib.blake2b(name, digest_size=6).digest()) / (1 << 48)


def split(source: Source, share: float, report: Reporter | None = None) -> tuple[Source, Source, int]:
    """What is learned from, what is held out, and how many records are on neither side. Reads every record once, and of
    each picture its beginning."""
    reader, done = source.reader, 0

    def sides(found: Iterable[Record | Issue]) -> Iterator[int]:
        nonlocal done
        for one in found:
            yield side_of(one, source.root, share) if isinstance(one, Record) else LEARNED
            done += 1
            if report is not None and done % TRACKED == 0:
                report.track(f"holding out of {reader.path.name}", min(done, len(reader)), len(reader))

    if isinstance(reader, ShardReader):
        shards = [np.fromiter(sides(reader.shard(number)), np.int8) for number in range(len(reader.paths))]
        learned, held = (ShardPart(reader, [each == side for each in shards]) for side in (LEARNED, HELD_OUT))
        return replace(source, reader=learned), replace(source, reader=held), _count(shards)
    whole = np.fromiter(sides(reader.read(index) for index in range(len(reader))), np.int8)
    one, other = (IndexedPart(reader, np.flatnonzero(whole == side)) for side in (LEARNED, HELD_OUT))
    return replace(source, reader=one), replace(source, reader=other), _count([whole])


def _count(sides: Sequence[np.ndarray]) -> int:
    return sum(int((each == NEITHER).sum()) for each in sides)


class IndexedPart(IndexedReader):
    """Some records of a file, in its order.

    Args:
        kept: their numbers in the file, rising.
    """

    def __init__(self, reader: IndexedReader, kept: np.ndarray) -> None:
        super().__init__(reader.path, reader.format)
        self.reader, self.kept = reader, kept

    def __len__(self) -> int:
        return len(self.kept)

    def read(self, index: int) -> Record | Issue:
        return self.reader.read(int(self.kept[index]))

    @property
    def groups(self) -> list[int]:
        ends = np.searchsorted(self.kept, np.cumsum(self.reader.groups))
        return [int(size) for size in np.diff(ends, prepend=0) if size] or [0]

    def file_issues(self) -> Iterator[Issue]:
        return self.reader.file_issues()

    def notes(self) -> Iterator[Issue]:
        return self.reader.notes()


class ShardPart(ShardReader):
    """Some samples of tar shards, in their order.

    Args:
        kept: by shard, which of what it gives.
    """

    def __init__(self, reader: ShardReader, kept: Sequence[np.ndarray]) -> None:
        super().__init__(reader.paths)
        self.kept = kept

    @property
    def sizes(self) -> list[int]:
        return [int(each.sum()) for each in self.kept]

    def shard(self, number: int) -> Iterator[Record | Issue]:
        kept = self.kept[number]
        for place, found in enumerate(islice(super().shard(number), len(kept))):
            if kept[place]:
                yield found
