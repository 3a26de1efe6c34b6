"""Every form in which a picture is handed over gives the same picture, and what is none is refused in few words."""

from __future__ import annotations

import base64
import io
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from astrea import AstreaError
from astrea.data.image_sources import read_image
from noise_images import encode, noise

PICTURE = noise(24, 16)
VALUES = np.asarray(PICTURE)
PNG = encode(PICTURE, "PNG")
BASE64 = base64.b64encode(PNG).decode()
TENSOR = torch.from_numpy(VALUES.transpose(2, 0, 1).copy())


def same(source: Any, **options: Any) -> bool:
    found = read_image(source, **options)
    return found.mode == "RGB" and np.array_equal(np.asarray(found), VALUES)


SOURCES = {
    "Pillow": PICTURE,
    "bytes": PNG,
    "bytearray": bytearray(PNG),
    "memoryview": memoryview(PNG),
    "open file": io.BytesIO(PNG),
    "data URL": f"data:image/png;base64,{BASE64}",
    "data URL with more": f"DATA:image/png;charset=utf-8;BASE64,{BASE64}",
    "data URL of a wrong kind": f"data:text/plain;base64,{BASE64}",
    "base64": BASE64,
    "base64 in lines": textwrap.fill(BASE64, 76),
    "base64 without padding": BASE64.rstrip("="),
    "base64 for URLs": base64.urlsafe_b64encode(PNG).decode(),
    "bytes of datasets": {"bytes": PNG, "path": None},
    "bytes of datasets with a name": {"bytes": PNG, "path": "gone.png"},
    "array": VALUES,
    "array, channels first": VALUES.transpose(2, 0, 1),
    "array of floats": VALUES / 255,
    "array of halves": (VALUES / 255).astype(np.float16),
    "array of wide integers": VALUES.astype(np.int64),
    "tensor": TENSOR,
    "tensor, channels last": TENSOR.permute(1, 2, 0),
    "tensor of floats": TENSOR.float() / 255,
    "tensor of doubles with a gradient": (TENSOR.double() / 255).requires_grad_(),
    "tensor of wide integers": TENSOR.long(),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_the_same_picture_in_every_form(kind):
    assert same(SOURCES[kind])


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_base64_of_every_format(name):
    data = encode(PICTURE, name)
    wanted = np.asarray(read_image(data))
    assert np.array_equal(np.asarray(read_image(base64.b64encode(data).decode())), wanted)


def test_paths_and_file_urls(tmp_path: Path):
    path = tmp_path / "a picture, 100 %.png"
    path.write_bytes(PNG)
    for source in (path, str(path), path.as_uri(), f"file://localhost{path.as_uri()[7:]}", {"path": str(path)}):
        assert same(source)


def test_grey_and_transparent_values():
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    for source in (grey, grey[..., None], grey[None], torch.from_numpy(grey), torch.from_numpy(grey[None] / 255)):
        assert np.array_equal(np.asarray(read_image(source))[..., 0], grey)
    clear = np.zeros((6, 8, 4), np.uint8)
    assert (np.asarray(read_image(clear)) == 255).all()
    assert (np.asarray(read_image(torch.from_numpy(clear).permute(2, 0, 1))) == 255).all()


def test_bfloat16_is_as_fine_as_it_can_be():
    found = np.asarray(read_image((TENSOR.float() / 255).bfloat16())).astype(int)
    assert np.abs(found - VALUES).max() <= 1


def test_where_both_layouts_would_do_the_library_or_the_option_tells():
    values = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    assert read_image(values).size == (5, 3)
    assert read_image(torch.from_numpy(values)).size == (3, 5)
    assert read_image(values, channels_first=True).size == (3, 5)
    assert read_image(torch.from_numpy(values), channels_first=False).size == (5, 3)


WRONG: dict[str, tuple[Any, str]] = {
    "http": ("https://example.org/cats/1.png", "URLs are not fetched"),
    "http path": (Path("http://example.org/cats/1.png"), "URLs are not fetched"),
    "long URL": ("https://example.org/" + "x" * 5000, "URLs are not fetched"),
    "other URL": ("s3://bucket/cat.png", "URLs are not fetched"),
    "file on another machine": ("file://server/share/cat.png", "another machine"),
    "data URL without base64": ("data:image/svg+xml;utf8,<svg/>" + " " * 500, "without base64"),
    "damaged data URL": (f"data:image/png;base64,{BASE64[:401]}?{BASE64[:400]}", "damaged base64"),
    "cut data URL": (f"data:image/png;base64,{BASE64[:400]}", "damaged or cut short"),
    "empty data URL": ("data:image/png;base64,", "0 bytes"),
    "base64 of something else": (base64.b64encode(b"%PDF-1.7 " * 300).decode(), "cannot be opened"),
    "cut base64": (BASE64[:400], "damaged or cut short"),
    "mapping": ({"colour": "red" * 500}, "mapping of colour"),
    "empty mapping": ({"bytes": None, "path": None}, "mapping of bytes, path"),
    "file of text": (io.StringIO("x" * 500), "opened as text"),
    "closed file": (io.BytesIO(), "0 bytes"),
    "number": (3, "int"),
    "nothing": (None, "NoneType"),
    "five channels": (np.zeros((5, 8, 8), np.uint8), r"shape \(5, 8, 8\)"),
    "no pixels": (np.zeros((0, 8, 3), np.uint8), r"shape \(0, 8, 3\)"),
    "one dimension": (np.zeros(8, np.uint8), r"shape \(8,\)"),
    "video": (torch.zeros(2, 2, 3, 8, 8), r"shape \(2, 2, 3, 8, 8\)"),
    "normalised": (torch.full((3, 8, 8), -1.5), "from -1.5 to -1.5"),
    "floats up to 255": (np.full((8, 8, 3), 200.0), "from 200 to 200"),
    "not a number": (np.full((8, 8, 3), np.nan), "float64"),
    "wide integers": (np.full((8, 8, 3), 300), "from 300 to 300"),
    "truth values": (np.zeros((8, 8), bool), "bool"),
    "no values": (torch.zeros(3, 8, 8, device="meta"), "gives no values"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_picture_is_refused_in_few_words(kind):
    source, said = WRONG[kind]
    with pytest.raises(AstreaError, match=said) as caught:
        read_image(source, name="image 2 of 3")
    assert caught.value.message.startswith("image 2 of 3")
    assert caught.value.hint
    assert len(str(caught.value)) < 300
    assert BASE64[:61] not in str(caught.value)


def test_a_picture_of_too_many_bytes_is_not_read(monkeypatch):
    monkeypatch.setattr("astrea.data.image_sources.MAX_BYTES", 100)
    for source in (BASE64, f"data:image/png;base64,{BASE64}", io.BytesIO(PNG)):
        with pytest.raises(AstreaError, match="more than 100 bytes"):
            read_image(source)
