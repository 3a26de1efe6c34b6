"""WebDataset shards: tar files whose neighbouring members with one key are one sample, read as a stream.

``000012.jpg`` and ``000012.json`` have the key ``000012``; everything after the first dot of the name is the kind.
Pictures of a plain ``.tar`` stay in the shard until they are asked for; those of a compressed one come along.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from itertools import groupby
from lzma import LZMAError
from pathlib import Path
from typing import Any

from astrea.common.paths import open_file
from astrea.data.readers.issues import BadRow, Issue, printable, quoted
from astrea.data.readers.jsonl import MAX_ROW_BYTES
from astrea.data.readers.line_index import DATA_FILE
from astrea.data.readers.pictures import MAX_IMAGE_BYTES
from astrea.data.readers.reader import Reader, open_guard
from astrea.data.readers.record import ImageRef, InlineImage, MemberImage, Record, Where
from astrea.data.readers.shard_sample import Member, record_of
from astrea.data.readers.shard_survey import MemberName, Survey, member_name, survey
from astrea.data.suffixes import NOT_READ

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
_MAX_HEADER = 1 << 20
MAX_SKIPPED = 4 << 30
"""The largest member of a compressed shard, which has to be unpacked even where it is not used."""

_EXTRA_TYPES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_TROUBLE = (tarfile.TarError, EOFError, zlib.error, LZMAError, UnicodeDecodeError)


class ShardReader(Reader):
    """Shards in the order given. There is no access by number; the number of samples is counted on demand.

    Args:
        paths: the shards, at least one.

    Raises:
        AstreaError: a shard cannot be read.
    """

    def __init__(self, paths: list[Path]) -> None:
        super().__init__(paths[0], "webdataset")
        self.paths = [Path(path) for path in paths]
        for path in self.paths:
            open_file(path, DATA_FILE).close()

    @cached_property
    def surveys(self) -> list[Survey]:
        """What the names in each shard reveal; the first use reads every header."""
        return [self._survey(path) for path in self.paths]

    @property
    def sizes(self) -> list[int]:
        """How many samples each shard has."""
        return [found.samples for found in self.surveys]

    def __len__(self) -> int:
        return sum(self.sizes)

    def notes(self) -> Iterator[Issue]:
        for path, found in zip(self.paths, self.surveys, strict=True):
            for note in found.notes():
                yield note.at(Where(str(path)))

    def examine(self) -> Iterator[Record | Issue]:
        for number in range(len(self.paths)):
            yield from self.shard(number)
        yield from self.notes()

    def shard(self, number: int) -> Iterator[Record | Issue]:
        """The samples of one shard in order; one whose file breaks off ends with an issue."""
        path = self.paths[number]
        place = 0
        try:
            with open_guard(path):
                for place, (key, members) in enumerate(groupby(_members(path), key=lambda one: one.name.key), 1):
                    where = Where(str(path), place)
                    try:
                        yield record_of(key, list(members), where)
                    except BadRow as bad:
                        yield bad.at(where, key)
        except _TROUBLE as error:
            what = f"the shard is damaged or cut short after sample {place}: {printable(str(error), 120)}"
            yield BadRow("unreadable", what, "copy or download the shard again").at(Where(str(path)))

    def _survey(self, path: Path) -> Survey:
        def names() -> Iterator[str]:
            # `shard` reports a file that breaks off, once reading gets there.
            with suppress(*_TROUBLE):
                for _, info, _ in _headers(path):
                    yield info.name

        with open_guard(path):
            return survey(names())


class _Info(tarfile.TarInfo):
    """Headers whose long names and extras are held to a size before they are read."""

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if self.type in _EXTRA_TYPES and self.size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


def _headers(path: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo, bool]]:
    """The members of a shard that are no folders, in order, and whether the shard is compressed."""
    with open_file(path, DATA_FILE) as file:
        packed = file.read(6).startswith(_COMPRESSED)
    with tarfile.open(path, "r|*" if packed else "r:", tarinfo=_Info) as tar:
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # it would remember every header
            if packed and info.size > MAX_SKIPPED:
                raise tarfile.ReadError(f"a compressed member of {info.size:,} bytes")
            if not info.isdir():
                yield tar, info, packed


def _members(path: Path) -> Iterator[Member]:
    """The members of a shard that are part of samples, in order."""
    for tar, info, packed in _headers(path):
        if (name := member_name(info.name)) is not None:
            yield Member(name, _content(tar, info, path, name, packed))


def _content(
    tar: tarfile.TarFile, info: tarfile.TarInfo, path: Path, name: MemberName, packed: bool
) -> ImageRef | bytes | BadRow:
    """A picture, or the bytes of a text, or what is wrong with the member."""
    shown = quoted(info.name)
    if not info.isreg() or info.issparse():
        return BadRow("unreadable", f"member {shown} is a link or no ordinary file", "write the shard with whole files")
    if name.ending in NOT_READ:
        what = f"picture {shown} is of the format {name.ending}, which is not read"
        return BadRow("image_corrupt", what, "convert it to JPEG, PNG or WEBP")
    most = MAX_IMAGE_BYTES if name.is_picture else MAX_ROW_BYTES
    if info.size > most:
        what = f"member {shown} has {info.size:,} bytes; at most {most:,} are read"
        return BadRow("unreadable", what, "make it smaller")
    if name.is_picture and not packed:
        return MemberImage(str(path), info.name, info.offset_data, info.size)
    file = tar.extractfile(info)
    data = file.read() if file else b""
    return InlineImage(data, info.name) if name.is_picture else data
