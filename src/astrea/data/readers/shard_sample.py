"""One sample of a tar shard as a record: its pictures, and what its ``.txt`` and ``.json`` say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from astrea.data.readers.fields import id_of, text_of
from astrea.data.readers.formats import FORMS, form_of
from astrea.data.readers.issues import BadRow, quoted
from astrea.data.readers.jsonl import parse_object
from astrea.data.readers.reader import Row
from astrea.data.readers.record import ImageRef, Record, Where
from astrea.data.readers.shard_survey import MemberName

LAY_OUT = "give every sample a name without dots before its endings: 000012.jpg, 000012.txt"


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a sample: a picture, or the bytes of a text, or what is wrong with it."""

    name: MemberName
    content: ImageRef | bytes | BadRow


def record_of(key: str, members: Sequence[Member], where: Where) -> Record:
    """One sample as a record.

    Raises:
        BadRow: a member cannot be read or is there twice, names with dots make one sample of several, or the JSON is of
            no known form.
    """
    _check_names(members)
    for member in members:
        if isinstance(member.content, BadRow):
            raise member.content
    images = tuple(one.content for one in members if not isinstance(one.content, (bytes, BadRow)))
    said = [(one.name.ending, one.content) for one in members if isinstance(one.content, bytes)]
    texts = [_text(data).strip() for ending, data in said if ending == ".txt"]
    rows = [parse_object(data) for ending, data in said if ending == ".json"]
    if len(rows) > 1:
        raise BadRow("unreadable", f"the sample has {len(rows)} .json members", f"write one; or {LAY_OUT}")
    row: Row = rows[0] if rows else {}
    if form := form_of(row):
        return _row_record(form, row, key, images, texts, where)
    if not images and "status" in row and row["status"] != "success":
        what = f"the picture was not downloaded: status {quoted(row['status'])}, {quoted(row.get('error_message'))}"
        raise BadRow("no_image", what, "download it again, or leave the sample out")
    if isinstance(row.get("caption"), str):
        texts.append(text_of(row["caption"], "caption").strip())
    captions = tuple(dict.fromkeys(texts))  # img2dataset writes the caption into both
    return Record(id_of(row) or key, where, images, captions=captions, meta=row)


def _row_record(form: str, row: Row, key: str, images: tuple[ImageRef, ...], texts: list[str], where: Where) -> Record:
    """The record of a row that a sample's JSON is; the sample's own pictures stand for those it names."""
    if images:
        row = {name: value for name, value in row.items() if name not in ("image", "images")}
        if form == "retrieval" and len(images) > 1:
            what = f"a row {{image, caption}} with {len(images)} pictures"
            raise BadRow("image_count", what, f"captions describe one picture; {LAY_OUT}")
        row |= {"image": images[0]} if form == "retrieval" else {"images": list(images)}
    record = FORMS[form](row, where)
    return replace(record, id=record.id or key, captions=tuple(dict.fromkeys((*record.captions, *texts))))


def _check_names(members: Sequence[Member]) -> None:
    """Names with dots would make one sample of many: 22.05.png, 22.05.txt, 22.07.png ... all have the key 22.

    Raises:
        BadRow: they did, or a name is there twice.
    """
    kinds = [member.name.kind for member in members]
    if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
        raise BadRow("merged", f"the sample has two members with the ending {quoted(twice)}", "leave one of them out")
    named: dict[bool, set[str]] = {True: set(), False: set()}  # what stands between the key and the ending
    for name in (member.name for member in members):
        named[name.is_picture].add(name.kind.removesuffix(name.ending.removeprefix(".")).rstrip("."))
    if len(named[True] | named[False]) > 1 and any(named[True]) and any(named[False]):
        names = ", ".join(quoted(member.name.kind) for member in members[:4])
        what = f"the sample is made of several ({names} ...): its key ends at the first dot of the name"
        raise BadRow("merged", what, LAY_OUT)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRow("encoding", f"byte {error.start + 1} of the text is not UTF-8", "write it as UTF-8") from None
