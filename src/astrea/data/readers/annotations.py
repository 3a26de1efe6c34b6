"""Annotation files that are one JSON object: COCO captions and instances, Karpathy's ``dataset_coco.json``.

Pictures and what is said about them stand in different lists there, so the whole file is parsed; its size is limited.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from astrea.common.errors import AstreaError
from astrea.common.paths import size_of
from astrea.data.readers.fields import id_of, is_id, kind_of, list_of, text_of
from astrea.data.readers.issues import BadRow, Issue, quoted
from astrea.data.readers.reader import ListReader, Row, open_guard, row_id
from astrea.data.readers.record import FileImage, Record, Where

MAX_BYTES = 1 << 30
"""The largest annotation file that is read; parsing takes several times its size of memory."""

NAMES = ("coco-captions", "coco-instances", "karpathy")


def read_document(path: Path) -> Row:
    """The JSON object that a file holds.

    Raises:
        AstreaError: it cannot be read, is larger than `MAX_BYTES`, or is no JSON object; names the line.
    """
    with open_guard(path):
        size = size_of(path)
        if size > MAX_BYTES:
            raise AstreaError(
                f"{path} has {size:,} bytes; annotation files of at most {MAX_BYTES:,} are read, since all of one is "
                "parsed",
                "split the file, or write its rows as JSONL, which may have any size",
            )
        data = path.read_bytes()
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise AstreaError(f"{path}:{line}: not UTF-8", "save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        what = f"{path}:{error.lineno}: not valid JSON: {error.msg}"
        raise AstreaError(what, "correct the syntax there, or copy the file again") from None
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error).split(";")[0]
        raise AstreaError(f"{path}: not valid JSON: {what}", "copy the file again") from None
    if not isinstance(value, dict):
        raise AstreaError(f"{path}: holds {kind_of(value)}, not an object", "give a COCO or Karpathy annotation file")
    return value


def name_of_document(document: Row) -> str | None:
    """Which of `NAMES` an object is, or None."""
    images, notes = document.get("images"), document.get("annotations")
    if not isinstance(images, list):
        return None
    if isinstance(notes, list):
        boxes = "categories" in document or any(isinstance(note, dict) and "bbox" in note for note in notes[:1])
        return "coco-instances" if boxes else "coco-captions"
    return "karpathy" if any(isinstance(image, dict) and "sentences" in image for image in images[:1]) else None


def annotation_reader(path: Path, format: str, document: Row, split: str | None = None) -> ListReader:
    """The records of an annotation file, one per picture.

    Args:
        path: the file, for messages and the records' places.
        format: one of `NAMES`.
        document: its content.
        split: Karpathy files only: which splits are wanted, such as "train+restval"; None = all.

    Raises:
        AstreaError: the lists are missing, or no picture is in the wanted splits.
    """
    try:
        if format == "karpathy":
            wanted = frozenset(split.split("+")) if split else None
            found = list(_karpathy(document, path, wanted))
            if wanted and not found:
                have = sorted({str(image.get("split")) for image in document["images"] if isinstance(image, dict)})
                raise AstreaError(f"{path} has no picture of the split {split!r}", f"its splits: {', '.join(have)}")
        elif split:
            raise AstreaError(f"{path}: only karpathy files have splits", f"write the format as {format}")
        else:
            found = list((_captions if format == "coco-captions" else _instances)(document, path))
    except BadRow as bad:  # of the frame; what is wrong with one picture is an issue of that one
        raise bad.at(Where(str(path))).error() from None
    return ListReader(path, format, found)


def _each(document: Row, path: Path, make: Any) -> Iterator[Record | Issue]:
    """``make(image, where)`` for every entry of ``images``."""
    images = list_of(document.get("images"), "images", 'the file needs a list "images"')
    for number, image in enumerate(images, 1):
        where = Where(str(path), number)
        try:
            if not isinstance(image, dict):
                raise BadRow("wrong_type", f"'images[{number - 1}]' is {kind_of(image)}, not an object", "correct it")
            made = make(image, where)
            if made is not None:
                yield made
        except BadRow as bad:
            yield bad.at(where, row_id(image) if isinstance(image, dict) else None)


def _by_image(document: Row) -> dict[Any, list[tuple[int, Row]]]:
    """The annotations of every picture, in their order."""
    notes = list_of(document.get("annotations"), "annotations", 'the file needs a list "annotations"')
    grouped: dict[Any, list[tuple[int, Row]]] = defaultdict(list)
    for number, note in enumerate(notes):
        key = note.get("image_id") if isinstance(note, dict) else None
        if not is_id(key):
            what = f"'annotations[{number}]' has no image_id"
            raise BadRow("wrong_type", what, "every annotation is an object with the id of its picture")
        grouped[key].append((number, note))
    return grouped


def _captions(document: Row, path: Path) -> Iterator[Record | Issue]:
    notes = _by_image(document)

    def make(image: Row, where: Where) -> Record:
        own = notes.get(_key(image), [])
        texts = tuple(text_of(note.get("caption"), f"annotations[{number}].caption").strip() for number, note in own)
        return Record(id_of(image), where, (_file(image),), captions=texts)

    return _each(document, path, make)


def _instances(document: Row, path: Path) -> Iterator[Record | Issue]:
    notes = _by_image(document)
    kinds = list_of(document.get("categories"), "categories", 'the file needs a list "categories"')
    names = _names_of_kinds(kinds)

    def make(image: Row, where: Where) -> Record:
        boxes = [_box(note, number, names) for number, note in notes.get(_key(image), [])]
        meta = {"width": image.get("width"), "height": image.get("height"), "boxes": boxes}
        return Record(id_of(image), where, (_file(image),), captions=_listing(boxes), meta=meta)

    return _each(document, path, make)


def _names_of_kinds(kinds: list[Any]) -> dict[int | str, str]:
    """What the categories are called, by id."""
    names: dict[int | str, str] = {}
    for number, kind in enumerate(kinds):
        here = f"categories[{number}]"
        if not isinstance(kind, dict) or not is_id(kind.get("id")):
            raise BadRow("wrong_type", f"'{here}' has no id", "every category is an object with an id and a name")
        names[kind["id"]] = text_of(kind.get("name"), f"{here}.name")
    return names


def _box(note: Row, number: int, names: Mapping[Any, str]) -> dict[str, Any]:
    """``{label, box: [x, y, width, height] in pixels, crowd}``."""
    here = f"annotations[{number}]"
    sides = note.get("bbox")
    numbers = isinstance(sides, list) and len(sides) == 4
    if not numbers or not all(isinstance(side, (int, float)) and abs(side) < 1e9 for side in sides or []):
        raise BadRow("wrong_type", f"'{here}.bbox' is not four numbers", "write it as [x, y, width, height] in pixels")
    kind = note.get("category_id")
    if not is_id(kind) or kind not in names:
        what = f"'{here}.category_id' is {quoted(kind)}, which no category has"
        raise BadRow("wrong_type", what, 'add the category to "categories"')
    return {"label": names[kind], "box": sides, "crowd": bool(note.get("iscrowd"))}


def _listing(boxes: list[dict[str, Any]]) -> tuple[str, ...]:
    """One caption that lists the objects, the most frequent kind first: ``person (3), dog``; none without objects."""
    counts = Counter(box["label"] for box in boxes)
    listed = [name if count == 1 else f"{name} ({count})" for name, count in sorted(counts.items(), key=_by_count)]
    return (", ".join(listed),) if listed else ()


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _karpathy(document: Row, path: Path, wanted: frozenset[str] | None) -> Iterator[Record | Issue]:
    def make(image: Row, where: Where) -> Record | None:
        split = text_of(image.get("split"), "split")
        if wanted and split not in wanted:
            return None
        sentences = list_of(image.get("sentences"), "sentences", 'every picture has a list "sentences"')
        texts = tuple(
            text_of(one.get("raw") if isinstance(one, dict) else one, f"sentences[{number}].raw").strip()
            for number, one in enumerate(sentences)
        )
        folder = image.get("filepath") or ""
        name = text_of(image.get("filename"), "filename")
        path_of_image = f"{text_of(folder, 'filepath')}/{name}" if folder else name
        given = next((str(image[key]) for key in ("cocoid", "imgid") if is_id(image.get(key))), None)
        return Record(given, where, (FileImage(path_of_image),), captions=texts, meta={"split": split})

    return _each(document, path, make)


def _key(image: Row) -> int | str:
    key = image.get("id")
    if not is_id(key):
        raise BadRow("wrong_type", f"'id' of the picture is {kind_of(key)}", "every picture has an id")
    return key


def _file(image: Row) -> FileImage:
    return FileImage(text_of(image.get("file_name"), "file_name"))
