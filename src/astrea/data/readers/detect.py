"""Which format a file is in, by its ending and its first record, and the reader for it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from astrea.common.errors import AstreaError
from astrea.common.paths import open_file, size_of
from astrea.data.readers.annotations import NAMES, annotation_reader, name_of_document, read_document
from astrea.data.readers.formats import FORMS, form_of
from astrea.data.readers.issues import BadRow, quoted
from astrea.data.readers.jsonl import MAX_ROW_BYTES, parse_object
from astrea.data.readers.line_index import DATA_FILE, Track
from astrea.data.readers.plugins import PLUGINS, PluginReader, plugin, plugin_form
from astrea.data.readers.reader import (
    Form,
    IndexedReader,
    JsonReader,
    ListReader,
    Row,
    RowReader,
    first_byte,
    form_record,
    open_guard,
)
from astrea.data.readers.record import Where
from astrea.data.readers.shards import ShardReader
from astrea.data.readers.tables import TableReader

AnyReader = IndexedReader | ShardReader
"""What a data file is read by."""

FORMATS = (*FORMS, "openai", *NAMES, "webdataset")
"""The built-in formats; "openai" is "messages", whose content may be parts. After "karpathy" a colon and the wanted
splits may follow: ``karpathy:train+restval``. For formats of other packages see `astrea.data.readers.plugins`."""

JSON_ENDINGS = (".json", ".jsonl", ".ndjson")
TABLE_ENDINGS = (".parquet", ".arrow", ".feather", ".ipc")
SHARD_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_LOOKED_AT = 100


def open_reader(path: str | Path, format: str | None = None, track: Track | None = None) -> AnyReader:
    """The reader of a data file.

    Args:
        path: the file.
        format: one of `FORMATS`, a format that an installed package registers, or "module:Name"; None = found out.
        track: called with the number of bytes that the first pass over a JSON file has read.

    Raises:
        AstreaError: the file cannot be read, or its format is unknown or does not go with its ending.
    """
    path = Path(path)
    name, _, split = (format or "").partition(":")
    if format is not None and name not in FORMATS:
        return _plugin_reader(path, format, track)
    name = "messages" if name == "openai" else name
    with open_guard(path):
        size = size_of(path)
    kind = _container(path)
    fitting = {"shard": ("webdataset",), "table": tuple(FORMS), "json": (*FORMS, *NAMES)}[kind]
    if name and name not in fitting:
        raise AstreaError(f"{path}: a {kind} file is not read as {name}", f"its format can be {', '.join(fitting)}")
    if split and name != "karpathy":
        raise AstreaError(f"the format {quoted(format)} has no splits", "only karpathy has: karpathy:train+restval")
    if kind == "shard":
        return ShardReader([path])
    if kind == "json" and size and (name in NAMES or (not name and _is_document(path))):
        document = read_document(path)
        found = name or name_of_document(document)
        if found is None:
            if (form := form_of(document)) is None:
                raise _unknown(path, document)
            return ListReader(path, form, [form_record(FORMS[form], document, Where(str(path), 1))])
        return annotation_reader(path, found, document, split or None)
    first = next(iter(FORMS))  # replaced below, once the rows have been read
    reader = _row_reader(path, name or first, FORMS[name or first], track)
    if not name:
        reader.format = _format_of(reader)
        reader.form = FORMS[reader.format]
    return reader


def open_shards(paths: Sequence[str | Path]) -> ShardReader:
    """The reader of several WebDataset shards that are one set."""
    return ShardReader([Path(path) for path in paths])


def _plugin_reader(path: Path, format: str, track: Track | None) -> IndexedReader:
    """The reader of a file in a format of another package."""
    found = plugin(format)
    if found is None:
        known = ", ".join((*FORMATS, *PLUGINS.known()))
        raise AstreaError(f"unknown format {quoted(format)}", f'known formats: {known}; or write "module:Name"')
    if isinstance(found, type):
        return PluginReader(path, format, found)
    if _container(path) == "shard":
        what = f"{path}: {quoted(format)} is a format of rows, and a tar shard has none"
        raise AstreaError(what, "use it for JSON, JSONL, Parquet and Arrow files")
    return _row_reader(path, format, plugin_form(format, found), track)


def _row_reader(path: Path, name: str, form: Form, track: Track | None) -> RowReader:
    return JsonReader(path, name, form, track) if _container(path) == "json" else TableReader(path, name, form)


def _container(path: Path) -> str:
    lower = path.name.lower()
    for kind, endings in (("json", JSON_ENDINGS), ("table", TABLE_ENDINGS), ("shard", SHARD_ENDINGS)):
        if lower.endswith(endings):
            return kind
    known = ", ".join((*JSON_ENDINGS, *TABLE_ENDINGS, *SHARD_ENDINGS))
    hint = f"known endings: {known}"
    if lower.endswith((".yaml", ".yml")):
        hint = f"a recipe is looked over by: astrea recipe check {shlex.quote(str(path))}"
    raise AstreaError(f"{path} has the unknown ending {quoted(path.suffix)}", hint)


def _is_document(path: Path) -> bool:
    """Whether a JSON file is one object over many lines, or one line that is an annotation file."""
    if path.suffix.lower() != ".json" or first_byte(path) != b"{":
        return False
    with open_file(path, DATA_FILE) as file:
        line = file.readline(MAX_ROW_BYTES)
        more = file.read(1 << 16).strip()
    try:
        row = parse_object(line.removeprefix(b"\xef\xbb\xbf"))
    except BadRow:
        return True  # an object that goes on beyond its first line
    return not more and name_of_document(row) is not None


def _format_of(reader: RowReader) -> str:
    """The format of the first row that has one; of a file without any readable row it does not matter."""
    seen: Row | None = None
    for index in islice(range(len(reader)), _LOOKED_AT):
        row = reader.row(index)[1]
        if isinstance(row, dict):
            seen = seen or row
            if name := form_of(row):
                return name
    if seen is not None:
        raise _unknown(reader.path, seen)
    return reader.format


def _unknown(path: Path, row: Row) -> AstreaError:
    keys = ", ".join(quoted(str(key), 30) for key in list(row)[:8]) or "none"
    return AstreaError(
        f"{path}: its format is unknown; the first record has the keys {keys}",
        "known: llava {conversations}, messages {messages}, prompt {prompt, completion}, retrieval {image, caption}, "
        "coco {images, annotations}, karpathy {images with sentences}, webdataset (.tar); see docs/data.md",
    )
