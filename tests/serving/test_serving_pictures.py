"""What the process that decodes pictures sends, what is made of it, and how much of it is kept."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from astrea.common.errors import AstreaError
from astrea.data.images import ORIGINAL_PIXELS
from astrea.model.image_processing import AstreaImageProcessor
from astrea.serving import pictures as pictures_module
from astrea.serving.app import Server
from astrea.serving.decoder import REPLY, REQUEST, answer, decoded
from astrea.serving.errors import ApiError
from astrea.serving.features import Picture
from astrea.serving.limits import Limits
from astrea.serving.local import Asker
from astrea.serving.pictures import PictureReader
from astrea.serving.settings import Settings
from noise_images import encode, noise

SIDE = 64


class Direct(PictureReader):
    """Decodes without a process."""

    async def _decoded(self, data: bytes) -> tuple[tuple[int, int], bytes]:
        found = decoded(data, self.size, self.limits.pixels, self.limits.aspect, self.originals)
        return found.size, b"".join(part.tobytes() for part in (found.square, found.original) if part is not None)


def reply_to(data: bytes, *, original: bool, pixels: int = 4_000_000) -> tuple[bool, tuple[int, int], bytes]:
    """What the process answers to a file."""
    target = io.BytesIO()
    source = io.BytesIO(REQUEST.pack(SIDE, pixels, 200.0, original, len(data)) + data)
    assert answer(source, target)
    assert not answer(source, target)
    well, width, height, length = REPLY.unpack(target.getvalue()[: REPLY.size])
    body = target.getvalue()[REPLY.size :]
    assert len(body) == length
    return well, (width, height), body


def turned(picture: Image.Image) -> bytes:
    """A file that says that its picture lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(picture, "JPEG", exif=exif)


FILES = {
    "wide": encode(noise(90, 30), "PNG"),
    "high": encode(noise(7, 40), "WEBP", lossless=True),
    "turned": turned(noise(50, 20)),
    "larger than an expert is given": encode(Image.new("L", (2200, 1100), 77), "PNG"),
}


@pytest.mark.parametrize("what", FILES)
def test_both_forms_of_a_picture_are_those_of_the_processor_bit_for_bit(what):
    made = AstreaImageProcessor(SIDE, originals=True)([FILES[what]])
    picture = asyncio.run(Direct(SIDE, Limits(), originals=True).read(FILES[what]))
    assert torch.equal(picture.pixels, made["pixel_values"][0])
    assert torch.equal(picture.original, made["original_images"][0])
    assert picture.original.dtype == torch.uint8
    assert picture.original[0].numel() <= ORIGINAL_PIXELS
    width, height = picture.size
    assert (height > width) == (picture.original.shape[1] > picture.original.shape[2])


def test_nothing_but_the_square_is_sent_where_nothing_else_is_wanted():
    well, size, body = reply_to(FILES["wide"], original=False)
    assert (well, size, len(body)) == (True, (90, 30), 3 * SIDE * SIDE)
    more = reply_to(FILES["wide"], original=True)[2]
    assert more[: len(body)] == body
    assert np.array_equal(
        np.frombuffer(more[len(body) :], np.uint8).reshape(3, 30, 90).transpose(1, 2, 0), noise(90, 30)
    )
    picture = asyncio.run(Direct(SIDE, Limits()).read(FILES["wide"]))
    assert picture.original is None
    assert picture.nbytes == 12 * SIDE * SIDE


def test_a_model_whose_experts_read_squares_gets_nothing_else(loaded):
    assert not Server(loaded, Settings(name="tiny")).reader.originals
    picture = Asker(loaded).picture(noise(90, 30))
    assert picture.original is None
    assert picture.size == (90, 30)


@pytest.mark.parametrize("original", [False, True])
@pytest.mark.parametrize("size", [(300, 1), (1, 300), (3000, 2000)])
def test_what_is_too_narrow_or_too_large_is_refused_in_either_form(size, original):
    header = encode(Image.new("1", size), "PNG")
    well, told, body = reply_to(header, original=original)
    assert (well, told) == (False, (0, 0))
    assert len(body) < 300
    with pytest.raises(AstreaError):
        decoded(header, SIDE, 4_000_000, 200.0, original)


LIES = {
    "more than the square": (True, SIDE, SIDE, 3 * SIDE * SIDE + 1, True),
    "less than both": (True, SIDE, SIDE, 6 * SIDE * SIDE - 1, True),
    "more than a square": (True, 90, 30, 3 * SIDE * SIDE + 3 * 90 * 30, False),
    "no picture": (True, 0, 5, 3 * SIDE * SIDE, True),
    "without end": (True, 2**32 - 1, 2**32 - 1, 2**63, True),
    "a long message": (False, 0, 0, 1 << 30, True),
}


class Liar:
    """A process that answers whatever it is asked with one head and some zeros, and notes that it was ended."""

    def __init__(self, head: tuple[Any, ...]) -> None:
        self.stdin, self.stdout, self.ended = self, asyncio.StreamReader(), False
        self.stdout.feed_data(REPLY.pack(*head) + bytes(1000))

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    async def wait(self) -> None: ...

    def kill(self) -> None:
        self.ended = True


@pytest.mark.parametrize("what", LIES)
def test_a_process_that_says_what_no_picture_has_is_ended_and_not_listened_to(what, monkeypatch):
    *head, originals = LIES[what]
    liars = []

    async def lying() -> Liar:
        liars.append(Liar(tuple(head)))
        return liars[0]

    async def ask() -> None:
        reader = PictureReader(SIDE, Limits(picture_seconds=30), originals=originals)
        monkeypatch.setattr(reader, "_start", lying)
        await reader.read(FILES["wide"])

    with pytest.raises(ApiError) as refused:
        asyncio.run(ask())
    assert (refused.value.status, refused.value.code) == (400, "image_too_costly")
    assert [liar.ended for liar in liars] == [True]


def test_what_is_kept_is_bounded_by_its_bytes(monkeypatch):
    one = 12 * SIDE * SIDE + 3 * 90 * 30
    monkeypatch.setattr(pictures_module, "KEPT_BYTES", 2 * one)
    reader = Direct(SIDE, Limits(), originals=True)

    async def read() -> list[Picture]:
        return [await reader.read(encode(noise(90, 30, seed), "PNG")) for seed in (1, 2, 3)]

    found = asyncio.run(read())
    assert {picture.nbytes for picture in found} == {one}
    assert [picture.key in reader.kept for picture in found] == [False, True, True]
    large = asyncio.run(reader.read(encode(noise(500, 300), "PNG")))
    assert large.key not in reader.kept
    assert reader.kept.currsize <= 2 * one


def test_when_requests_hold_too_much_more_pictures_are_refused_until_some_are_let_go(monkeypatch):
    monkeypatch.setattr(pictures_module, "KEPT_BYTES", 1)
    reader = Direct(SIDE, Limits(held_bytes=1), originals=True)

    async def ask() -> None:
        held = await reader.read(FILES["wide"])
        assert reader.held_bytes == held.nbytes
        assert await reader.read(FILES["wide"]) is held  # which takes no more
        with pytest.raises(ApiError) as refused:
            await reader.read(FILES["high"])
        assert (refused.value.status, refused.value.retry_after) == (429, 1)
        del held
        assert (await reader.read(FILES["high"])).size == (7, 40)

    asyncio.run(ask())
