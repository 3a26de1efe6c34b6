"""What goes between the server and its engine's process: JSON, and the bytes of pictures behind it.

Nothing of it is ever unpickled: a part of it comes from clients.

Letters: L tokens, S side of the square picture, H W height and width of a picture as it is.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from astrea.common.errors import AstreaError
from astrea.data.fitted import FittedPicture
from astrea.serving.errors import ApiError, internal
from astrea.serving.features import Picture, picture_of
from astrea.serving.job import Prompt

HEAD = struct.Struct("<QQ")
"""Bytes of the JSON, and of what follows it."""

Frame = tuple[dict[str, Any], memoryview]
"""A message, and the bytes behind it."""


def written(message: dict[str, Any], parts: Sequence[bytes] = ()) -> bytes:
    """A message as a frame; parts: what stands behind it."""
    said = json.dumps(message).encode()
    return b"".join([HEAD.pack(len(said), sum(map(len, parts))), said, *parts])


def read_frame(source: Source) -> Frame | None:
    """The next frame of a file; None where it ends."""
    head = source.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    said, behind = HEAD.unpack(head)
    body = source.read(said + behind)
    if len(body) < said + behind:
        return None
    return json.loads(body[:said]), memoryview(body)[said:]


class Source(Protocol):
    """What bytes are read from, so many at a time, and fewer only at its end."""

    def read(self, count: int, /) -> bytes:
        """The next bytes."""


class Frames:
    """Frames out of bytes that come in pieces."""

    def __init__(self) -> None:
        self._held = bytearray()

    def push(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now."""
        self._held += data
        while len(self._held) >= HEAD.size:
            said, behind = HEAD.unpack_from(self._held)
            end = HEAD.size + said + behind
            if len(self._held) < end:
                return
            whole = bytes(self._held[HEAD.size : end])
            del self._held[:end]
            yield json.loads(whole[:said]), memoryview(whole)[said:]


def written_pictures(pictures: Iterable[Picture]) -> tuple[list[dict[str, Any]], list[bytes]]:
    """What is to be known of pictures, and their bytes. The square goes as the bytes that it was made of."""
    told, parts = [], []
    for one in pictures:
        original = None if one.original is None else one.original.numpy()
        parts.append(np.rint(one.pixels.numpy() * 255).astype(np.uint8).tobytes())
        if original is not None:
            parts.append(original.tobytes())
        told.append(
            {
                "key": one.key,
                "side": one.pixels.shape[-1],
                "original": None if original is None else original.shape[1:],
                "size": one.size,
            }
        )
    return told, parts


def read_pictures(told: Sequence[dict[str, Any]], behind: memoryview) -> tuple[list[Picture], memoryview]:
    """Pictures of `written_pictures`, and the bytes that are left."""
    found = []
    for one in told:
        square, behind = _array((3, one["side"], one["side"]), behind)
        original = None
        if one["original"] is not None:
            original, behind = _array((3, *one["original"]), behind)
        side = one["side"]
        picture = picture_of(one["key"], FittedPicture(square, original, tuple(one["size"] or (side, side))))
        found.append(picture)
    return found, behind


def _array(shape: tuple[int, ...], behind: memoryview) -> tuple[np.ndarray, memoryview]:
    count = math.prod(shape)
    return np.frombuffer(behind[:count], np.uint8).reshape(shape).copy(), behind[count:]


def written_prompts(prompts: Iterable[Prompt]) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Prompts, and the bytes of their pictures."""
    told, parts = [], []
    for prompt in prompts:
        pictures, more = written_pictures(prompt.pictures)
        parts += more
        told.append(
            {
                "ids": prompt.ids.tolist(),
                "asked": prompt.asked.tolist(),
                "pictures": pictures,
                "without": sorted(prompt.without),
            }
        )
    return told, parts


def read_prompts(told: Sequence[dict[str, Any]], behind: memoryview) -> list[Prompt]:
    """Prompts of `written_prompts`."""
    found = []
    for one in told:
        pictures, behind = read_pictures(one["pictures"], behind)
        asked = torch.tensor(one["asked"], dtype=torch.bool)
        found.append(Prompt(torch.tensor(one["ids"]), asked, tuple(pictures), frozenset(one["without"])))
    return found


def written_error(error: BaseException) -> dict[str, Any]:
    """Why something was not done; what nobody foresaw is for the log of where it happened."""
    if isinstance(error, AstreaError):
        return {"message": error.message, "hint": error.hint}
    found = error if isinstance(error, ApiError) else internal()
    more = {name: getattr(found, name) for name in ("kind", "param", "code", "retry_after")}
    return {"status": found.status, "message": found.message, **more}


def read_error(told: dict[str, Any]) -> ApiError | AstreaError:
    """The error of `written_error`."""
    if "status" in told:
        return ApiError(told.pop("status"), told.pop("message"), **told)
    return AstreaError(told["message"], told["hint"])
