"""Every way an image file can be wrong must end in an AstreaError that names it, with no file left open."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from astrea.common.errors import AstreaError
from astrea.data.images import load_image
from noise_images import encode, noise


def png_header_only(width: int, height: int) -> bytes:
    """A PNG that says it is huge and holds a handful of bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def fails(source: object, *words: str, **options: object) -> None:
    with pytest.raises(AstreaError) as caught:
        load_image(source, **options)
    assert caught.value.hint
    for word in words:
        assert word in str(caught.value)


def test_missing_folder_empty_and_text(tmp_path: Path) -> None:
    fails(tmp_path / "none.png", "none.png", "does not exist")
    fails(str(tmp_path / "none.png"), "none.png")
    (tmp_path / "folder.png").mkdir()
    fails(tmp_path / "folder.png", "folder.png", "is a folder")
    (tmp_path / "empty.jpg").write_bytes(b"")
    fails(tmp_path / "empty.jpg", "empty.jpg", "0 bytes")
    (tmp_path / "notes.png").write_text("hello, this is no image\n" * 9)
    fails(tmp_path / "notes.png", "notes.png", "JPEG, PNG, WEBP, GIF, BMP or TIFF")
    fails(tmp_path / "notes.png" / "a.png", "a.png")
    fails("with\0null.png", "cannot be opened")
    fails("x" * 5000 + ".png", "cannot be opened")
    fails(b"", "0 bytes")
    fails(b"text", "sample 3", name="sample 3")
    fails(tmp_path / "none.png", "sample 3", "none.png", name="sample 3")
    fails(17, "int")
    fails(None, "NoneType")


def test_formats_outside_the_list_are_refused(tmp_path: Path) -> None:
    noise().save(tmp_path / "image.ppm")
    fails(tmp_path / "image.ppm", "image.ppm", "is not a")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    fails(tmp_path / "pipe.png", "pipe.png", "not an ordinary file")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.png"
    noise().save(path)
    path.chmod(0)
    try:
        path.read_bytes()
    except PermissionError:
        pass
    else:  # root and some file systems ignore permissions
        monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    fails(path, "secret.png", "permission")


@pytest.mark.parametrize("side", [30_000, 9_000, 60_000])
def test_size_is_checked_before_decoding(tmp_path: Path, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png_header_only(side, side))
    decoded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self))
    fails(path, "huge.png", f"{side:,} x {side:,}", "64,000,000", "smaller")
    assert not decoded


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_pillow_only_warns_of_is_an_error() -> None:
    fails(png_header_only(10_000, 10_000), "10,000 x 10,000", "MAX_IMAGE_PIXELS", max_pixels=10**9)


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_warnings_as_errors_still_name_the_size() -> None:
    fails(png_header_only(10_000, 10_000), "10,000 x 10,000")


def test_the_limit_is_inclusive_and_holds_for_image_objects() -> None:
    assert load_image(noise(10, 10), max_pixels=100).size == (10, 10)
    fails(noise(10, 10), "10 x 10", "99", max_pixels=99)
    fails(Image.new("RGB", (0, 5)), "no pixels")


def test_closed_image_object(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    image.close()
    fails(image, "the image")


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_cut_in_the_middle_is_named(tmp_path: Path, format_name: str) -> None:
    data = encode(noise(64, 64), format_name)
    path = tmp_path / "cut.img"
    path.write_bytes(data[: len(data) // 2])
    fails(path, "cut.img")


@pytest.mark.parametrize(
    ("format_name", "options"),
    [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {"lossless": True}), ("GIF", {}),
     ("TIFF", {"compression": "tiff_lzw"})],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_truncated_anywhere(format_name: str, options: dict[str, object]) -> None:
    data = encode(noise(40, 40), format_name, **options)
    whole = load_image(data)
    for length in range(0, len(data), 37):
        try:
            image = load_image(data[:length])
        except AstreaError:
            continue
        np.testing.assert_array_equal(
            np.asarray(image), np.asarray(whole)
        )  # only bytes after the last pixel may be missing unnoticed


@given(data=st.binary(max_size=300), start=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a",
       b"BM", b"II*\0", b"MM\0*", b"RIFF\x20\0\0\0WEBPVP8 "]))  # fmt: skip
@settings(max_examples=200, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_random_bytes(data: bytes, start: bytes) -> None:
    only_astrea_errors(start + data)


@given(where=st.integers(0, 10**6), value=st.integers(0, 255), which=st.integers(0, 5))
@settings(max_examples=200, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_one_changed_byte(where: int, value: int, which: int) -> None:
    data = bytearray(encode(noise(12, 12), ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"][which]))
    data[where % len(data)] = value
    only_astrea_errors(bytes(data))


def only_astrea_errors(data: bytes) -> None:
    try:
        image = load_image(data, max_pixels=1_000_000)
    except AstreaError:
        return
    assert image.mode == "RGB"


@pytest.mark.filterwarnings("ignore")
def test_no_file_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real_open = Path.open
    monkeypatch.setattr(Path, "open", lambda *args, **more: opened.append(real_open(*args, **more)) or opened[-1])
    good = {name: encode(noise(), name) for name in ("PNG", "JPEG", "GIF", "WEBP", "BMP")}
    good["TIFF"] = encode(noise(), "TIFF", compression="tiff_lzw")
    sources = [
        *good.values(),
        *(data[: len(data) // 2] for data in good.values()),
        b"text",
        png_header_only(9999, 9999),
    ]
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir())) if descriptors.exists() else 0
    for number, data in enumerate(sources):
        path = tmp_path / f"{number}.img"
        path.write_bytes(data)
        try:
            load_image(path)
        except AstreaError:
            assert number >= len(good)
    assert len(opened) >= len(sources)
    assert all(file.closed for file in opened)
    if descriptors.exists():  # also what the libraries below Python opened
        assert len(list(descriptors.iterdir())) == before


def test_a_name_of_other_capitals_is_hinted_at(tmp_path: Path):
    (tmp_path / "Cat.JPG").touch()
    with pytest.raises(AstreaError) as refused:
        load_image(tmp_path / "cat.jpg")
    assert "there is Cat.JPG: capitals count" in refused.value.hint
