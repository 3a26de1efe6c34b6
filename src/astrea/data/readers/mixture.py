"""Several sources as one endless order of samples that any process can enter anywhere.

Which record stands at a position is a function of (position, seed, epoch) and of the files alone, so that a resumed run
and a run on another number of processes go on exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

from PIL import Image

from astrea.common.errors import AstreaError
from astrea.data.readers.detect import AnyReader
from astrea.data.readers.interleave import BLOCK, block_plan
from astrea.data.readers.issues import NOTES, BadRow, Issue
from astrea.data.readers.pictures import ImageRoot
from astrea.data.readers.reader import IndexedReader
from astrea.data.readers.record import ImageRef, Record
from astrea.data.readers.shards import ShardReader
from astrea.data.readers.shuffle import GroupedOrder, stream_order

Check = Callable[[Record, ImageRoot], Iterable[Issue]]
BUFFER = 1000
"""Samples of a stream that are shuffled into each other."""


@dataclass(frozen=True)
class Source:
    """One part of a mixture.

    Args:
        reader: the records.
        root: where its pictures' paths start.
        weight: how often each record is seen per epoch: 1 = once, 2 = twice, 0.5 = every other one, in turn.
    """

    reader: AnyReader
    root: ImageRoot
    weight: float = 1.0


@dataclass(frozen=True)
class Sample:
    """A record at its place in the order; ``source`` is the number of its source."""

    epoch: int
    position: int
    source: int
    record: Record
    root: ImageRoot

    def pictures(self) -> list[Image.Image]:
        """Its pictures, decoded: upright, RGB.

        Raises:
            AstreaError: one is missing, damaged, too large or outside the root; names file, line and id.
        """
        return [self.picture(image) for image in self.record.images]

    def picture(self, image: ImageRef) -> Image.Image:
        """One of its pictures, as `pictures`."""
        try:
            return self.root.load(image)
        except BadRow as bad:
            raise bad.at(self.record.source, self.record.id).error() from None


class Mixture:
    """Sources in proportion to weight times size; an epoch holds each record ``weight`` times.

    Args:
        sources: at least one, none empty.
        buffer: of sources that are read as a stream, see `stream_order`.
        check: what else is asked of a record before it is given out, such as `astrea.data.readers.check.Checks`.
        on_issue: called with each bad record, whose place is then taken by the next good one of its source (a place is
            never left out, so that all processes stay in step); None = a bad record is an error.

    Raises:
        AstreaError: there is no source, or one is empty.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        buffer: int = BUFFER,
        check: Check | None = None,
        on_issue: Callable[[Issue], None] | None = None,
    ) -> None:
        if not sources:
            raise AstreaError("there is no data to mix", "give at least one data file")
        self.sources = tuple(sources)
        self.check = check
        self.on_issue = on_issue
        self.sizes = [len(source.reader) for source in sources]
        for source, size in zip(sources, self.sizes, strict=True):
            if not size:
                raise AstreaError(f"data file {source.reader.path} holds no record", "leave it out, or fill it")
        if on_issue is not None:
            for source in sources:
                for note in source.reader.notes():
                    on_issue(note)
        self.shares = tuple(
            max(1, round(source.weight * size)) for source, size in zip(sources, self.sizes, strict=True)
        )
        self._feeds = [
            _Stream(source.reader, buffer, number, self._verdict)
            if isinstance(source.reader, ShardReader)
            else _Indexed(source.reader, number, self._verdict)
            for number, source in enumerate(sources)
        ]

    def __len__(self) -> int:
        """Places of one epoch."""
        return sum(self.shares)

    def draw(self, position: int, seed: int, epoch: int) -> tuple[int, int]:
        """Which source a place of an epoch is taken from, and which of that source's draws it is, counted over all
        epochs. A function of its arguments and of the sources' sizes and weights."""
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} of an epoch of {len(self)}")
        sources, draws = block_plan(position // BLOCK, self.shares, seed, epoch)
        source = int(sources[position % BLOCK])
        return source, epoch * self.shares[source] + int(draws[position % BLOCK])

    def sample(self, position: int, seed: int, epoch: int) -> Sample:
        """The sample at a place of an epoch.

        Sources that are read as a stream are read on from the last place that was asked for, or from the beginning of
        their pass if that lies behind, so ask for places in rising order.

        Args:
            position: 0 .. len - 1.
            seed: decides the order, together with the epoch.
            epoch: from 0.

        Raises:
            AstreaError: the record is bad and ``on_issue`` is None, or its source has no good record.
        """
        source, number = self.draw(position, seed, epoch)
        turn, place = divmod(number, self.sizes[source])
        record = self._feeds[source].get(seed, turn, place)
        return Sample(epoch, position, source, record, self.sources[source].root)

    def shard(self, rank: int = 0, world: int = 1, *, seed: int, start: int = 0) -> Iterator[Sample]:
        """This process's part of the endless order: the places ``start + rank``, ``start + rank + world``, ...

        Args:
            rank, world: the process and their number.
            seed: decides the order.
            start: samples that all processes together have had already, over all epochs.
        """
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world}")
        for place in count(start + rank, world):
            epoch, position = divmod(place, len(self))
            yield self.sample(position, seed, epoch)

    def _verdict(self, number: int, found: Record | Issue) -> Record | Issue:
        """A record that passes the check, or what is wrong with it."""
        if isinstance(found, Record) and self.check is not None:
            for issue in self.check(found, self.sources[number].root):
                if issue.kind not in NOTES:
                    found = issue
                    break
                if self.on_issue is not None:
                    self.on_issue(issue)
        if isinstance(found, Issue):
            if self.on_issue is None:
                raise found.error()
            self.on_issue(found)
        return found


Verdict = Callable[[int, Record | Issue], Record | Issue]


class _Indexed:
    """A source whose records are had by number."""

    def __init__(self, reader: IndexedReader, number: int, verdict: Verdict) -> None:
        self.reader, self.number, self.verdict = reader, number, verdict
        self._order: tuple[tuple[int, int], GroupedOrder] | None = None

    def get(self, seed: int, turn: int, place: int) -> Record:
        """The record at a place of a pass, or the next good one after it."""
        if self._order is None or self._order[0] != (seed, turn):
            self._order = ((seed, turn), GroupedOrder(self.reader.groups, seed, self.number, turn))
        size = len(self.reader)
        for further in range(size):
            found = self.verdict(self.number, self.reader.read(self._order[1]((place + further) % size)))
            if isinstance(found, Record):
                return found
        raise _nothing_good(self.reader)


class _Stream:
    """A source that is read as a stream; the place reached is kept for the next call."""

    def __init__(self, reader: ShardReader, buffer: int, number: int, verdict: Verdict) -> None:
        self.reader, self.buffer, self.number, self.verdict = reader, buffer, number, verdict
        self._pass: Iterator[Record] = iter(())
        self._reached: tuple[int, int, int] | None = None  # seed, turn and the place that comes next

    def get(self, seed: int, turn: int, place: int) -> Record:
        """The record at a place of a pass, or the next good one after it."""
        if self._reached is None or self._reached[:2] != (seed, turn) or self._reached[2] > place:
            self._pass = self._good(stream_order(self.reader, self.buffer, seed, self.number, turn))
            self._reached = (seed, turn, 0)
        skipped = place - self._reached[2]
        self._reached = None  # after an error, the next call begins anew
        record = next(islice(self._pass, skipped, None), None)
        if record is None:
            raise _nothing_good(self.reader)
        self._reached = (seed, turn, place + 1)
        return record

    def _good(self, found: Iterator[Record | Issue]) -> Iterator[Record]:
        """The good records, each also in the places of the bad ones before it; after the last good one, that one."""
        waiting, last = 1, None
        for one in found:
            verdict = self.verdict(self.number, one)
            if isinstance(verdict, Issue):
                waiting += 1
                continue
            last = verdict
            for _ in range(waiting):
                yield last
            waiting = 1
        while last is not None:
            yield last


def _nothing_good(reader: AnyReader) -> AstreaError:
    return AstreaError(f"data file {reader.path} holds no good record", "see what is wrong with: astrea validate DATA")
