"""WebDataset shards: tar files whose neighbouring members with one key are one sample, read as a stream.

``000012.jpg`` and ``000012.json`` have the key ``000012``; everything after the first dot of the name is the kind.
Pictures of a plain ``.tar`` stay in the shard until they are asked for; those of a compressed one come along.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from lzma import LZMAError
from pathlib import Path
from typing import Any

from astrea.data.records.faults import BadRow, Fault, printable, quoted
from astrea.data.records.fields import id_of, text_of
from astrea.data.records.forms import FORMS, form_of
from astrea.data.records.pictures import MAX_IMAGE_BYTES
from astrea.data.records.reader import Reader, Row, open_guard
from astrea.data.records.record import ImageRef, InlineImage, MemberImage, Record, Where
from astrea.data.records.rowjson import MAX_ROW_BYTES, parse_object
from astrea.data.records.spans import DATA_FILE
from astrea.paths import open_file

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp")
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
_MAX_HEADER = 1 << 20
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
    def sizes(self) -> list[int]:
        """How many samples each shard has; the first use reads every header."""
        return [self._count(path) for path in self.paths]

    def __len__(self) -> int:
        return sum(self.sizes)

    def examine(self) -> Iterator[Record | Fault]:
        for number in range(len(self.paths)):
            yield from self.shard(number)

    def shard(self, number: int) -> Iterator[Record | Fault]:
        """The samples of one shard in order; one whose file breaks off ends with a fault."""
        path = self.paths[number]
        place = 0
        try:
            with open_guard(path):
                for place, (key, members) in enumerate(groupby(_members(path, read=True), key=_key_of), 1):
                    where = Where(str(path), place)
                    try:
                        yield _record(key, list(members), where)
                    except BadRow as bad:
                        yield bad.at(where, key)
        except _TROUBLE as error:
            what = f"the shard is damaged or cut short after sample {place}: {printable(str(error), 120)}"
            yield BadRow("unreadable", what, "copy or download the shard again").at(Where(str(path)))

    def _count(self, path: Path) -> int:
        count = 0
        # Whoever reads on to where it breaks off is told by `shard`.
        with open_guard(path), suppress(*_TROUBLE):
            for _ in groupby(_members(path, read=False), key=_key_of):
                count += 1
        return count


@dataclass(frozen=True, slots=True)
class _Member:
    """A member of a sample: a picture, or text, or what is wrong with it."""

    key: str
    kind: str
    content: ImageRef | bytes | BadRow | None


class _Info(tarfile.TarInfo):
    """Headers whose long names and extras are held to a size before they are read."""

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if self.type in _EXTRA_TYPES and self.size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


def _key_of(member: _Member) -> str:
    return member.key


def _members(path: Path, *, read: bool) -> Iterator[_Member]:
    """The files of a shard in order; without ``read``, their keys alone."""
    with open_file(path, DATA_FILE) as file:
        packed = file.read(6).startswith(_COMPRESSED)
    with tarfile.open(path, "r|*" if packed else "r:", tarinfo=_Info) as tar:
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # it would remember every header
            if info.isdir():
                continue
            folder, slash, name = info.name.rpartition("/")
            stem, _, kind = name.partition(".")
            yield _Member(folder + slash + stem, kind.lower(), _content(tar, info, path, packed) if read else None)


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo, path: Path, packed: bool) -> ImageRef | bytes | BadRow | None:
    """A picture, or the bytes of a text; None for a member that is neither."""
    name = quoted(info.name)
    ending = info.name.rpartition(".")[2].lower()
    if ending not in (*IMAGE_ENDINGS, "txt", "json"):
        return None
    if not info.isreg() or info.issparse():
        return BadRow("unreadable", f"member {name} is a link or no ordinary file", "write the shard with whole files")
    most = MAX_IMAGE_BYTES if ending in IMAGE_ENDINGS else MAX_ROW_BYTES
    if info.size > most:
        return BadRow(
            "unreadable", f"member {name} has {info.size:,} bytes; at most {most:,} are read", "make it smaller"
        )
    if ending in IMAGE_ENDINGS and not packed:
        return MemberImage(str(path), info.name, info.offset_data, info.size)
    file = tar.extractfile(info)
    data = file.read() if file else b""
    return InlineImage(data, info.name) if ending in IMAGE_ENDINGS else data


def _record(key: str, members: list[_Member], where: Where) -> Record:
    """One sample as a record: its pictures, and what its ``.txt`` and ``.json`` say.

    Raises:
        BadRow: a member cannot be read, or the JSON says nothing known and there is no text either.
    """
    images: list[ImageRef] = []
    texts: list[str] = []
    row: Row = {}
    for member in members:
        if isinstance(member.content, BadRow):
            raise member.content
        if isinstance(member.content, bytes):
            if member.kind.endswith("json"):
                row = parse_object(member.content)
            else:
                texts.append(_text(member.content).strip())
        elif member.content is not None:
            images.append(member.content)
    if form := form_of(row):
        if images:
            row.pop("image", None)
            row["images" if form != "retrieval" else "image"] = images if form != "retrieval" else images[0]
        record = FORMS[form](row, where)
        return replace(record, id=record.id or key, captions=record.captions + tuple(texts))
    if isinstance(row.get("caption"), str):
        texts.append(text_of(row["caption"], "caption"))
    given = id_of(row)
    return Record(given or key, where, tuple(images), captions=tuple(texts), meta=row)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRow("encoding", f"byte {error.start + 1} of the text is not UTF-8", "write it as UTF-8") from None
