"""What goes between a server and its engine's process arrives as it was sent."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from astrea.common.errors import AstreaError
from astrea.data.fitted import FittedPicture
from astrea.serving.errors import ApiError, busy
from astrea.serving.features import Picture, picture_of
from astrea.serving.frames import (
    Frames,
    read_error,
    read_frame,
    read_prompts,
    written,
    written_error,
    written_prompts,
)
from astrea.serving.job import Prompt

MESSAGES = st.lists(
    st.tuples(st.dictionaries(st.text(), st.integers() | st.text()), st.binary(max_size=40)), max_size=6
)


@given(MESSAGES, st.integers(1, 30))
def test_frames_come_out_whole_however_the_bytes_are_cut(messages, step):
    sent = b"".join(written(message, [behind[:3], behind[3:]]) for message, behind in messages)
    frames = Frames()
    pieces = [sent[start : start + step] for start in range(0, len(sent), step)]
    assert [(m, bytes(b)) for piece in pieces for m, b in frames.push(piece)] == messages
    source = io.BytesIO(sent)
    assert [(m, bytes(b)) for m, b in iter(lambda: read_frame(source), None)] == messages


def test_half_a_frame_is_the_end():
    assert read_frame(io.BytesIO(written({"a": 1}, [b"bytes"])[:-1])) is None


def picture(number: int, *, original: bool) -> Picture:
    random = np.random.default_rng(number)
    square = np.arange(3 * 16 * 16, dtype=np.int64).reshape(3, 16, 16).astype(np.uint8)  # every byte there is
    whole = random.integers(0, 256, (3, 5, 7), np.uint8) if original else None
    return picture_of(f"key {number}", FittedPicture(square, whole, (7 + number, 5)))


def test_prompts_arrive_bit_by_bit():
    prompts = [
        Prompt(torch.arange(n + 2), torch.arange(n + 2) > 1, tuple(picture(k, original=n == 1) for k in range(n)),
               frozenset(["ocr"] * n))
        for n in range(3)
    ]  # fmt: skip
    told, parts = written_prompts(prompts)
    for want, found in zip(prompts, read_prompts(told, memoryview(b"".join(parts))), strict=True):
        assert torch.equal(want.ids, found.ids)
        assert torch.equal(want.asked, found.asked)
        assert found.asked.dtype == torch.bool
        assert want.without == found.without
        for one, other in zip(want.pictures, found.pictures, strict=True):
            assert (one.key, one.size) == (other.key, other.size)
            assert torch.equal(one.pixels, other.pixels)
            assert (one.original is None) == (other.original is None)
            assert one.original is None or other.original is None or torch.equal(one.original, other.original)


@pytest.mark.parametrize("error", [busy(3), ApiError(408, "late", kind="timeout_error", param="n", code="deadline")])
def test_refusals_arrive_as_they_are(error: ApiError):
    found = read_error(written_error(error))
    assert isinstance(found, ApiError)
    assert (found.status, found.body, found.headers) == (error.status, error.body, error.headers)


def test_other_errors_keep_for_themselves_what_nobody_foresaw():
    found = read_error(written_error(AstreaError("too long", "shorten it")))
    assert isinstance(found, AstreaError)
    assert (found.message, found.hint) == ("too long", "shorten it")
    hidden = read_error(written_error(ValueError("a secret")))
    assert isinstance(hidden, ApiError)
    assert hidden.status == 500
    assert "secret" not in hidden.message
