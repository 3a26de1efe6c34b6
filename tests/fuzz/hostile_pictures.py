"""Picture files that ask for much: few bytes and many pixels, many parts, many passes, tags that hold one another.

Every one is a function of its seed. ``size`` scales what they ask for: 1 = as much as an attacker would.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("L", "P"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "I;16"),
}
MOST_PIXELS = {"WEBP": 40_000_000}


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a file of this kind."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, pixels: bytes, bits: int = 8, colour: int = 0, before: bytes = b"") -> bytes:
    """A PNG of any size, with compressed pixels of any length."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def chunk(kind: bytes, body: bytes) -> bytes:
    """One part of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def zeros(count: int) -> bytes:
    """So many compressed zeros, without ever holding them."""
    packer = zlib.compressobj(1)
    block = bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(count >> 20)]
    return b"".join([*parts, packer.compress(bytes(count & ((1 << 20) - 1))), packer.flush()])


def tiff(entries: list[tuple[int, int, int, bytes]], tail: bytes = b"") -> bytes:
    """A TIFF of these tags (number, type, count, value); values of more than four bytes follow the tags."""
    place, head, body = 14 + 12 * len(entries), b"", b""
    for tag, kind, count, value in sorted(entries):
        if len(value) > 4:
            value, body = struct.pack("<I", place + len(body)), body + value
        head += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + head + bytes(4) + body + tail


def long(tag: int, *values: int) -> tuple[int, int, int, bytes]:
    """A TIFF tag of 32-bit numbers."""
    return tag, 4, len(values), struct.pack(f"<{len(values)}I", *values)


def grey_tiff(width: int, height: int, *more: tuple[int, int, int, bytes], compression: int = 1) -> bytes:
    """A grey TIFF of 8 bits with these further tags."""
    base = [long(256, width), long(257, height), long(258, 8), long(259, compression), long(262, 1), long(277, 1)]
    return tiff([*base, *more], bytes(4096))


def exif(entries: int, each: int) -> bytes:
    """An EXIF block whose entries all hold the same bytes."""
    head = b"".join(struct.pack("<HHII", 0x9000 + i, 7, each, 8) for i in range(entries))
    return (b"Exif\0\0II*\0" + struct.pack("<IH", 8, entries) + head + bytes(4)).ljust(each + 64, b"\0")


def ordinary(draw: random.Random, size: float) -> bytes:
    """A large picture of one colour in any format and mode."""
    kind = draw.choice(list(MODES))
    pixels = int(draw.choice([4_000_000, 30_000_000, 63_000_000]) * size) + 1
    width = max(1, min(int(pixels**0.5 * draw.choice([0.1, 1, 7])), 16_000 if kind == "WEBP" else 60_000))
    height = max(1, min(pixels, MOST_PIXELS.get(kind, pixels)) // width)
    mode = draw.choice(MODES[kind])
    limit = 16_000 if kind == "WEBP" else 65_000
    options: dict[str, object] = {}
    if kind == "JPEG":
        options = {"progressive": draw.random() < 0.5, "subsampling": 0}
    elif kind == "TIFF" and mode != "LA":
        options = {"compression": draw.choice(["tiff_lzw", "tiff_deflate", None])}
    elif kind == "WEBP":
        options = {"lossless": draw.random() < 0.5, "method": 0}
    if draw.random() < 0.3 and kind in ("JPEG", "PNG", "WEBP"):
        turned = Image.Exif()
        turned[0x0112] = draw.randint(1, 8)
        options["exif"] = turned
    return encoded(Image.new(mode, (min(width, limit), min(height, limit))), kind, **options)


def long_png(draw: random.Random, size: float) -> bytes:
    """Very long and very thin."""
    length = int(64_000_000 * size)
    width, height = draw.choice([(length, 1), (1, length), (length // 3, 3)])
    return png(width, height, zeros((width + 1) * height))


def wide_png(draw: random.Random, size: float) -> bytes:
    """More pixels than its data, in any depth."""
    side = int(8000 * size**0.5)
    return png(side, side, zeros(int(draw.random() * side * side)), draw.choice([8, 16]), draw.choice([0, 2, 4, 6]))


def png_of_chunks(draw: random.Random, size: float) -> bytes:
    """Many empty chunks, or text that unpacks to much."""
    if draw.random() < 0.5:
        more = chunk(draw.choice([b"aaAa", b"tEXt", b"IDAT"]), b"") * int(1_000_000 * size)
    else:
        more = chunk(b"zTXt", b"Raw profile type exif\0\0" + zeros(int(60_000_000 * size))) * 3
    return png(16, 16, zeros(17 * 16), before=more)


def jpeg_of_segments(draw: random.Random, size: float) -> bytes:
    """Many segments, empty or full."""
    data = encoded(Image.new("RGB", (32, 32)), "JPEG")
    marker = draw.choice([b"\xff\xe1", b"\xff\xe2", b"\xff\xed", b"\xff\xfe"])
    bodies = [b"", b"Exif\0\0" + bytes(65000), b"ICC_PROFILE\0\1\1" + bytes(60000), b"Photoshop 3.0\0" + b"8BIM"]
    what = draw.choice(bodies)
    count = int((1_000_000 if len(what) < 100 else 1000) * size) + 1
    return data[:2] + (marker + struct.pack(">H", len(what) + 2) + what) * count + data[2:]


def jpeg_of_scans(draw: random.Random, size: float) -> bytes:
    """A progressive JPEG whose last pass is repeated."""
    side = int(draw.choice([800, 7000]) * size**0.5) + 16
    data = encoded(Image.new("RGB", (side, side)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * int(draw.choice([20, 2000]) * size) + data[-2:]


def amplified_exif(draw: random.Random, size: float) -> bytes:
    """Entries that all hold the same bytes."""
    block = exif(int(4000 * size) + 1, int(10_000 * size) + 8)[:65_000]
    image = Image.new("RGB", (16, 16))
    if draw.random() < 0.5:
        return encoded(image, "PNG", exif=block)
    return encoded(image, draw.choice(["JPEG", "WEBP"]), exif=block)


def tiff_of_tags(draw: random.Random, size: float) -> bytes:
    """Tags that all hold the same bytes, or a count that leads out of the file."""
    count = int(2000 * size) + 1
    each = draw.choice([int(1_000_000 * size), 0xFFFFFFFF])
    plain = grey_tiff(16, 16, long(273, 8), long(279, 256), long(278, 16))
    entries = [(40_000 + i, 7, each, struct.pack("<I", 8)) for i in range(count)]
    base = [long(256, 16), long(257, 16), long(258, 8), long(259, 1), long(262, 1), long(273, 8), long(279, 256)]
    return tiff([*base, *entries], bytes(int(1_000_000 * size) + len(plain)))


def tiff_of_tiles(draw: random.Random, size: float) -> bytes:
    """Tiles larger than the picture, or very many of them."""
    if draw.random() < 0.5:
        side = int(draw.choice([4000, 20_000, 60_000]) * size**0.5) + 16
        data = zeros(min(side * side, 100_000_000))
        tile = [long(322, side), long(323, side), long(325, len(data))]
        begins = 14 + 12 * 10
        tags = [long(256, 16), long(257, 16), long(258, 8), long(259, 8), long(262, 1), long(277, 1), *tile]
        return tiff([*tags, long(324, begins)], data)
    count = int(400_000 * size) + 1
    return grey_tiff(16, count, long(273, *[8] * count), long(279, *[16] * count), long(278, 1))


def bmp_of_runs(draw: random.Random, size: float) -> bytes:
    """Run lengths of one pixel."""
    width, height = int(8000 * size**0.5) + 1, int(8000 * size**0.5) + 1
    body = draw.choice([b"\1\7", b"\0\2\xff\1", b"\0\0"]) * int(10_000_000 * size) + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(body), 0, 0, 1078) + head + bytes(1024) + body


def gif_of_blocks(draw: random.Random, size: float) -> bytes:
    """Many blocks before the picture."""
    data = encoded(Image.new("P", (32, 32)), "GIF")
    place = data.index(b",", 13)
    block = draw.choice([b"!\xfe\1a\0", b"!\xff\1a\0", b"!\xf9\4\0\0\0\0\0"])
    return data[:place] + block * int(5_000_000 * size) + data[place:]


def damaged(draw: random.Random, size: float) -> bytes:
    """A small picture with bytes changed, cut or put in."""
    kind = draw.choice(list(MODES))
    noise = np.random.default_rng(draw.randrange(1 << 30)).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    data = bytearray(encoded(Image.fromarray(noise), kind))
    for _ in range(draw.randint(1, 12)):
        place = draw.randrange(min(len(data), draw.choice([64, len(data)])))
        how = draw.random()
        if how < 0.7:
            data[place] = draw.choice([0, 255, 127, draw.randrange(256)])
        elif how < 0.85:
            data[place:place] = bytes(draw.randrange(256) for _ in range(draw.randint(1, 9)))
        else:
            del data[place : place + draw.randint(1, 30)]
        if not data:
            return b"\0"
    return bytes(data)


FAMILIES: tuple[Callable[[random.Random, float], bytes], ...] = (
    ordinary,
    long_png,
    wide_png,
    png_of_chunks,
    jpeg_of_segments,
    jpeg_of_scans,
    amplified_exif,
    tiff_of_tags,
    tiff_of_tiles,
    bmp_of_runs,
    gif_of_blocks,
    damaged,
)


def hostile_picture(seed: int, size: float = 1.0) -> tuple[str, bytes]:
    """The family and the bytes of one picture."""
    family = FAMILIES[seed % len(FAMILIES)]
    return family.__name__, family(random.Random(seed), size)
