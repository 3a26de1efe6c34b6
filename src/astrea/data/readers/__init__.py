"""Data that users bring: files of many formats become records, checked, mixed and sharded."""

from astrea.data.readers.detect import FORMATS, open_reader, open_shards
from astrea.data.readers.issues import KINDS, BadRow, Issue
from astrea.data.readers.pictures import ImageRoot
from astrea.data.readers.reader import IndexedReader
from astrea.data.readers.record import (
    IMAGE_MARK,
    FileImage,
    ImageRef,
    InlineImage,
    MemberImage,
    Message,
    Record,
    Where,
)

__all__ = [
    "FORMATS",
    "IMAGE_MARK",
    "KINDS",
    "BadRow",
    "FileImage",
    "ImageRef",
    "ImageRoot",
    "IndexedReader",
    "InlineImage",
    "Issue",
    "MemberImage",
    "Message",
    "Record",
    "Where",
    "open_reader",
    "open_shards",
]
