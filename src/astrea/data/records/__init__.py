"""Data that users bring: files of many formats become records, checked, mixed and sharded."""

from astrea.data.records.detect import FORMATS, open_reader, open_shards
from astrea.data.records.faults import KINDS, Fault
from astrea.data.records.pictures import ImageRoot
from astrea.data.records.record import (
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
    "Fault",
    "FileImage",
    "ImageRef",
    "ImageRoot",
    "InlineImage",
    "MemberImage",
    "Message",
    "Record",
    "Where",
    "open_reader",
    "open_shards",
]
