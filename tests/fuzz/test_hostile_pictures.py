"""Pictures made to cost much are read within the limits or refused with the reason, never anything else.

What they really take is measured by ``benchmarks/picture_budgets.py``; here they ask for a little, of lower limits.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from astrea import AstreaError
from astrea.data import image_limits
from astrea.data.images import check_image, load_image
from fuzz.hostile_pictures import (
    FAMILIES,
    chunk,
    encoded,
    exif,
    grey_tiff,
    hostile_picture,
    long,
    png,
    tiff,
    zeros,
)

RGB = Image.new("RGB", (16, 16), (10, 200, 30))
JPEG = encoded(RGB, "JPEG")
SCANS = encoded(RGB, "JPEG", progressive=True)
GIF = encoded(RGB, "GIF")
BMP = encoded(RGB.convert("P"), "BMP")
SEGMENT = b"\xff\xe1\0\2"


@pytest.mark.parametrize("seed", range(8 * len(FAMILIES)))
@pytest.mark.filterwarnings("ignore")
def test_families_end_in_a_picture_or_a_reason(seed):
    name, data = hostile_picture(seed, 0.002)
    found, refused = None, None
    try:
        found = load_image(data, name=name)
    except AstreaError as error:
        refused = error
    if refused is not None:
        assert refused.message.startswith(name)
        assert refused.hint
        assert len(str(refused)) < 500
    else:
        assert found.mode == "RGB"


def bmp_of_runs() -> bytes:
    body = (b"\1\7" * 8 + b"\0\0") * 8
    head = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(body), 0, 0, 1078) + head + bytes(1024) + body


LIMITED: dict[str, tuple[str, int, Callable[[], bytes], str]] = {
    "side": ("MAX_SIDE", 50, lambda: png(60, 1, zeros(61)), "60 x 1 pixels; the limit for a side is 50"),
    "memory of WEBP": (
        "MAX_DECODED_BYTES",
        4000,
        lambda: encoded(RGB, "WEBP"),
        "4,096 bytes of memory to decode as WEBP",
    ),
    "memory": ("MAX_DECODED_BYTES", 2000, lambda: encoded(RGB, "PNG"), "2,048 bytes of memory"),
    "file": ("MAX_FILE_BYTES", 50, lambda: JPEG, "the limit is 50"),
    "JPEG segments": ("MAX_SEGMENTS", 20, lambda: JPEG[:2] + SEGMENT * 20 + JPEG[2:], "more than 20 segments"),
    "JPEG metadata": (
        "MAX_METADATA_BYTES",
        900,
        lambda: JPEG[:2] + b"\xff\xe1" + struct.pack(">H", 900) + bytes(898) + JPEG[2:],
        "900 bytes before its pixels",
    ),
    "JPEG stray bytes": ("MAX_STRAY_BYTES", 20, lambda: JPEG[:20] + bytes(30) + JPEG[20:], "segments"),
    "JPEG passes": ("MAX_SCANNED_PIXELS", 256 * 8, lambda: SCANS, "9 times or more over 256 pixels"),
    "PNG chunks": ("MAX_CHUNKS", 9, lambda: png(4, 4, zeros(20), before=chunk(b"aaAa", b"") * 9), "more than 9 chunks"),
    "PNG metadata": (
        "MAX_METADATA_BYTES",
        200,
        lambda: png(4, 4, zeros(20), before=chunk(b"aaAa", bytes(210))),
        "200 bytes beside its pixels",
    ),
    "GIF blocks": (
        "MAX_CHUNKS",
        9,
        lambda: GIF[: GIF.index(b",", 13)] + b"!\xfe\1a\0" * 10 + GIF[GIF.index(b",", 13) :],
        "more than 9 blocks",
    ),
    "BMP runs": ("MAX_RLE_BYTES", 900, bmp_of_runs, "of run lengths"),
    "TIFF pieces": (
        "MAX_TILES",
        9,
        lambda: grey_tiff(16, 10, long(273, *[8] * 10), long(279, *[16] * 10), long(278, 1)),
        "cut into 10 pieces",
    ),
    "TIFF tiles": (
        "MAX_TILE_PIXELS",
        900,
        lambda: grey_tiff(16, 16, long(322, 32), long(323, 32), long(324, 8), long(325, 1024)),
        "tiles of 1,024 pixels",
    ),
}


@pytest.mark.parametrize("case", LIMITED)
def test_limits_hold_and_say_why(case, monkeypatch):
    limit, value, make, said = LIMITED[case]
    data = make()
    assert load_image(data).mode == "RGB"
    monkeypatch.setattr(image_limits, limit, value)
    with pytest.raises(AstreaError) as caught:
        load_image(data, name="sample 3")
    assert caught.value.message.startswith("sample 3 ")
    with pytest.raises(AstreaError) as checked:
        check_image(data)
    for refusal in (caught.value, checked.value):
        assert said in refusal.message
        assert refusal.hint


@pytest.mark.filterwarnings("ignore")
def test_tags_that_hold_one_another():
    base = [long(256, 16), long(257, 16), long(258, 8), long(259, 1), long(262, 1), long(273, 8), long(279, 256)]
    held = [(40_000 + i, 7, 500_000, struct.pack("<I", 8)) for i in range(40)]
    with pytest.raises(AstreaError, match="tags that hold more than the file does"):
        load_image(tiff([*base, *held], bytes(500_000)))
    # Values that lead out of the file are not read; such damage does not matter.
    lost = [(40_000 + i, 7, 0xFFFFFFFF, struct.pack("<I", 8)) for i in range(40)]
    assert load_image(tiff([*base, *lost], bytes(4096))).size == (16, 16)


def test_what_stands_behind_a_photograph_is_not_counted(monkeypatch):
    """A phone puts the seconds before it there, as a film."""
    monkeypatch.setattr(image_limits, "MAX_SCANNED_PIXELS", 256 * 12)
    for data in (JPEG, SCANS):
        assert load_image(data + b"\xff\xda" * 1000).size == (16, 16)
    last = SCANS[SCANS.rindex(b"\xff\xda") : -2]
    with pytest.raises(AstreaError, match="times or more"):
        load_image(SCANS[:-2] + last * 9 + SCANS[-2:])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_exif_block_that_holds_itself(kind):
    turned = Image.Exif()
    turned[0x0112] = 6
    assert load_image(encoded(Image.new("RGB", (20, 10)), kind, exif=turned)).size == (10, 20)
    assert image_limits.exif_is_bounded(turned.tobytes())
    block = exif(4000, 10_000)
    assert not image_limits.exif_is_bounded(block)
    data = encoded(Image.new("RGB", (20, 10)), kind, exif=block)
    if kind == "JPEG":  # Pillow reads it while it opens the file
        with pytest.raises(AstreaError, match="EXIF block whose entries hold more"):
            load_image(data)
    else:
        assert load_image(data).size == (20, 10)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F"])
def test_strips_are_not_seen(mode, monkeypatch):
    values = np.random.default_rng(0).integers(0, 256, (40, 30, 4), dtype=np.uint8)
    if mode in ("I;16", "I", "F"):
        image = Image.fromarray(values[..., 0].astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]) * 3)
    else:
        image = (
            Image.fromarray(values).convert("RGB").convert("P")
            if mode == "P"
            else Image.fromarray(values).convert(mode)
        )
    if mode == "P":
        image.info["transparency"] = 3
    whole = np.asarray(load_image(image))
    monkeypatch.setattr("astrea.data.image_modes.PIXELS_AT_ONCE", 70)
    assert np.array_equal(np.asarray(load_image(image)), whole)


@pytest.mark.parametrize(
    ("kind", "mode", "megapixels", "info"),
    [
        ("JPEG", "RGB", 64, {}),
        ("JPEG", "CMYK", 64, {"progressive": 1}),
        ("PNG", "RGBA", 64, {}),
        ("TIFF", "F", 64, {}),
        ("BMP", "RGB", 64, {}),
        ("GIF", "P", 64, {}),
        ("WEBP", "RGB", 50, {}),
    ],
)
def test_large_photographs_are_within_the_limits(kind, mode, megapixels, info):
    image = SimpleNamespace(format=kind, mode=mode, width=10_000, height=100 * megapixels, info=info)
    image_limits.check_memory(image)
    image.height *= 4
    with pytest.raises(image_limits.Costly, match=kind):
        image_limits.check_memory(image)
