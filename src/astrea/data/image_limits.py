"""What an image file may cost before anything of it is decoded.

A file of a few kilobytes can ask for gigabytes of memory or minutes of time: by its size in pixels, by a million empty
segments, by passes over the same pixels, by tags that all point at the same bytes. Every format's structure is walked
here first, in bounded time, and refused where it asks for more than any picture needs. What is merely damaged is left
to the decoder, which says so better.

Simplified: what the decoders take per pixel was measured with Pillow 13 and is not asked of them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import BinaryIO

from PIL import Image

MAX_SIDE = 100_000
"""Resizing takes memory by the longest side, whatever the other is."""

MAX_FILE_BYTES = 600_000_000
MAX_DECODED_BYTES = 900_000_000
"""The most memory that decoding may take, the picture itself included."""

MAX_SEGMENTS = 5_000
"""Of a JPEG: photographs with depth maps and previews have some hundreds."""

MAX_CHUNKS = 200_000
"""Of a PNG or GIF: 64 megapixels in chunks of 4 KB are 100,000."""

MAX_METADATA_BYTES = 32 << 20
MAX_SCANNED_PIXELS = 4_000_000_000
"""Pixels times passes over them, of a JPEG: a progressive one makes about ten."""

MAX_STRAY_BYTES = 100_000
"""Of a JPEG, between segments: decoders go over them one by one."""

MAX_TILES = 200_000
MAX_TILE_PIXELS = 32_000_000
MAX_RLE_BYTES = 8 << 20
"""Pillow decodes run lengths of a BMP in Python, a microsecond each."""

_BYTES_PER_VALUE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
_MARK = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
"""Of a JPEG, among pixels: 00 is a pixel's FF, 01 and D0 to D7 have no length, FF is filling."""

_WEBP_DECODER = 12
_PROGRESSIVE_DECODER = 8


class Costly(Exception):
    """Why a picture is refused, as the end of a sentence that begins with its name."""


def check_size(width: int, height: int) -> None:
    """Whether the sides are short enough to resize.

    Raises:
        Costly: one is not, whatever the other is.
    """
    if max(width, height) > MAX_SIDE:
        raise Costly(f"is {width:,} x {height:,} pixels; the limit for a side is {MAX_SIDE:,}")


def check_memory(image: Image.Image) -> None:
    """Whether a picture that is opened but not decoded may be.

    Raises:
        Costly: decoding it would take too much memory.
    """
    decoded = _BYTES_PER_VALUE.get(image.mode, 4)
    decoder = {"WEBP": _WEBP_DECODER, "TIFF": 8, "JPEG": _PROGRESSIVE_DECODER if "progressive" in image.info else 0}
    # The decoder's own, beside the picture; then the picture beside its RGB version.
    needed = max(decoder.get(image.format or "", 0) + decoded, decoded + 4) * image.width * image.height
    if needed > MAX_DECODED_BYTES:
        what = f"would take {needed:,} bytes of memory to decode as {image.format}"
        raise Costly(f"{what}; the limit is {MAX_DECODED_BYTES:,}")


def check_structure(file: BinaryIO) -> None:
    """Walk through the parts of an image file without decoding any; the file ends where it began.

    Raises:
        Costly: it has too many parts, or parts that ask for too much.
        OSError: it cannot be read.
    """
    size = file.seek(0, 2)
    file.seek(0)
    first = file.read(16)
    if size > MAX_FILE_BYTES:
        raise Costly(f"has {size:,} bytes; the limit is {MAX_FILE_BYTES:,}")
    walks: tuple[tuple[bytes, Callable[[BinaryIO, int], None]], ...] = (
        (b"\xff\xd8", _walk_jpeg),
        (b"\x89PNG", _walk_png),
        (b"GIF8", _walk_gif),
        (b"II", _walk_tiff),
        (b"MM", _walk_tiff),
        (b"BM", _walk_bmp),
    )
    try:
        for magic, walk in walks:
            if first.startswith(magic):
                walk(file, size)
    except (struct.error, IndexError, OverflowError):
        return  # cut short or damaged: the decoder will say so
    finally:
        file.seek(0)


def exif_is_bounded(exif: bytes) -> bool:
    """Whether the entries of an EXIF block hold no more than it does: each is copied out when it is read."""
    body = exif.removeprefix(b"Exif\0\0")
    try:
        order = {b"II": "<", b"MM": ">"}[body[:2]]
        offset = struct.unpack_from(order + "I", body, 4)[0]
        count = struct.unpack_from(order + "H", body, offset)[0]
        entries = [struct.unpack_from(order + "HHII", body, offset + 2 + 12 * i) for i in range(count)]
    except (KeyError, struct.error):
        return True  # not one that could be read
    held = sum(_held(kind, number, start, len(body)) for _, kind, number, start in entries)
    return held <= 2 * len(body) + 4096


def _walk_jpeg(file: BinaryIO, size: int) -> None:
    """Segments up to the first pixels, and passes over the pixels behind."""
    file.seek(2)
    segments = metadata = stray = pixels = 0
    exif = b""
    while (head := file.read(2)) and len(head) == 2:
        if head[0] != 0xFF or head[1] in (0x00, 0xFF):
            file.seek(-1, 1)  # filling, or damage that decoders jump over
            stray += 1
        elif head[1] == 0xDA:
            break
        elif not 0xD0 <= head[1] <= 0xD9 and head[1] != 0x01:
            length = struct.unpack(">H", file.read(2))[0]
            body = file.read(max(length - 2, 0))
            segments, metadata = segments + 1, metadata + length
            if 0xC0 <= head[1] <= 0xCF and head[1] not in (0xC4, 0xC8, 0xCC):
                pixels = max(pixels, int.from_bytes(body[1:3]) * int.from_bytes(body[3:5]))
            if head[1] == 0xE1 and body.startswith(b"Exif\0\0"):
                exif += body[6:] if exif else body
        if segments > MAX_SEGMENTS or metadata > MAX_METADATA_BYTES or stray > MAX_STRAY_BYTES:
            raise Costly(f"has more than {MAX_SEGMENTS:,} segments, or {MAX_METADATA_BYTES:,} bytes before its pixels")
    if not exif_is_bounded(exif):
        raise Costly("has an EXIF block whose entries hold more than it does")
    place = file.tell()
    if pixels * (1 + _count(file, b"\xff\xda")) > MAX_SCANNED_PIXELS:  # or something behind the picture looks like it
        file.seek(place)
        if pixels * (scans := _scans(file.read(), MAX_SCANNED_PIXELS // pixels)) > MAX_SCANNED_PIXELS:
            raise Costly(
                f"goes {scans:,} times or more over {pixels:,} pixels; the limit is {MAX_SCANNED_PIXELS:,} in all"
            )


def _count(file: BinaryIO, wanted: bytes) -> int:
    """How often two bytes stand in the rest of a file."""
    found, last = 0, b""
    while block := file.read(1 << 20):
        found += (last + block).count(wanted)
        last = block[-1:]
    return found


def _scans(data: bytes, enough: int) -> int:
    """Passes over the pixels of a JPEG from behind its first start-of-scan mark to its end; stops above ``enough``."""
    place, scans = 0, 1
    while scans <= enough:
        place += struct.unpack_from(">H", data, place)[0]
        mark = _MARK.search(data, place)
        if mark is None or mark.group() == b"\xff\xd9":
            break
        scans += mark.group() == b"\xff\xda"
        place = mark.end()
    return scans


def _walk_png(file: BinaryIO, size: int) -> None:
    place, chunks, metadata = 8, 0, 0
    while place < size:
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind == b"IEND":
            return
        chunks += 1
        metadata += 0 if kind in (b"IDAT", b"fdAT") else length
        if chunks > MAX_CHUNKS or min(metadata, size) > MAX_METADATA_BYTES:
            raise Costly(f"has more than {MAX_CHUNKS:,} chunks, or {MAX_METADATA_BYTES:,} bytes beside its pixels")
        place += 12 + length


def _walk_gif(file: BinaryIO, size: int) -> None:
    """Blocks up to the first picture's pixels."""
    file.seek(10)
    flags = file.read(3)[0]
    file.seek(13 + (3 << ((flags & 7) + 1) if flags & 128 else 0))
    blocks = 0
    while (kind := file.read(1)) and kind not in (b",", b";"):
        if kind == b"!":
            file.read(1)
            while length := file.read(1)[0]:
                file.seek(length, 1)
                blocks += 1
                if blocks > MAX_CHUNKS:
                    raise Costly(f"has more than {MAX_CHUNKS:,} blocks before its pixels")
        blocks += 1


def _walk_bmp(file: BinaryIO, size: int) -> None:
    file.seek(30)
    if struct.unpack("<I", file.read(4))[0] in (1, 2) and size > MAX_RLE_BYTES:
        raise Costly(f"has {size:,} bytes of run lengths; the limit is {MAX_RLE_BYTES:,}")


def _walk_tiff(file: BinaryIO, size: int) -> None:
    """The entries of the first picture."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    if big := struct.unpack_from(order + "H", head, 2)[0] == 43:
        file.seek(struct.unpack_from(order + "Q", head, 8)[0])
        number, shape = struct.unpack(order + "Q", file.read(8))[0], "HHQ8s"
    else:
        file.seek(struct.unpack_from(order + "I", head, 4)[0])
        number, shape = struct.unpack(order + "H", file.read(2))[0], "HHI4s"
    if number > 65_535:
        raise Costly(f"has {number:,} tags")
    held, values = 0, {}
    for _ in range(number):
        tag, kind, count, raw = struct.unpack(order + shape, file.read(20 if big else 12))
        offset = int.from_bytes(raw, "little" if order == "<" else "big")
        held += _held(kind, count, offset, size)
        values[tag] = int.from_bytes(raw[: _value_bytes(kind)], "little" if order == "<" else "big")
        if tag in (273, 279, 324, 325) and count > MAX_TILES:
            raise Costly(f"is cut into {count:,} pieces; the limit is {MAX_TILES:,}")
    if held > size + (1 << 20):
        raise Costly("has tags that hold more than the file does")
    tile = values.get(322, 0) * values.get(323, 0)
    if tile > MAX_TILE_PIXELS:
        raise Costly(f"has tiles of {tile:,} pixels; the limit is {MAX_TILE_PIXELS:,}")


def _held(kind: int, count: int, offset: int, size: int) -> int:
    """The bytes of a tag's values that lie elsewhere in a file of ``size`` bytes; those that do not are not read."""
    wanted = count * _value_bytes(kind)
    return wanted if 4 < wanted <= size - offset else 0


def _value_bytes(kind: int) -> int:
    """The bytes of one value; ``kind``: 1 to 18, as the TIFF specification and BigTIFF number them."""
    sizes = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 2, 0, 8, 8, 8)
    return sizes[kind] if kind < len(sizes) else 0
