"""Pictures of requests: data URLs only, decoded in processes of their own.

Letters: S side of the square picture.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import os
import re
import sys
from weakref import WeakValueDictionary

import numpy as np
from cachetools import LRUCache

from astrea.data.fitted import FittedPicture
from astrea.data.images import bounded_size
from astrea.serving.decoder import REPLY, REQUEST
from astrea.serving.errors import ApiError, busy
from astrea.serving.features import Picture, picture_of
from astrea.serving.limits import Limits

_DATA_URL = re.compile(r"data:(?:image/[\w.+-]{1,40})?;base64,", re.ASCII | re.IGNORECASE)
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
KEPT_BYTES = 64 << 20
MESSAGE_BYTES = 64 << 10


def file_of(url: str, most: int, param: str = "messages") -> bytes:
    """The file in a data URL.

    Args:
        param: the part of a request that errors name.

    Raises:
        ApiError: it is another kind of URL (nothing is fetched, and no file is opened), damaged or too large, or no
            JPEG, PNG or WEBP file. Never quotes it.
    """
    head = _DATA_URL.match(url)
    if head is None:
        what = "pictures must be data URLs with base64 (data:image/png;base64,...); other URLs are not fetched"
        raise ApiError(400, what, param=param, code="invalid_image_url")
    if len(url) - head.end() > -(-most // 3) * 4:
        raise _too_large(most, param)
    try:
        data = base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, "a picture is damaged base64", param=param, code="invalid_image") from None
    if len(data) > most:
        raise _too_large(most, param)
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    if not (webp or data.startswith(_BEGINNINGS)):
        raise ApiError(400, "a picture is no JPEG, PNG or WEBP file", param=param, code="invalid_image_format")
    return data


def _too_large(most: int, param: str) -> ApiError:
    return ApiError(413, f"a picture has more than {most:,} bytes", param=param, code="image_too_large")


class PictureReader:
    """Files -> `Picture`. Those seen before are not decoded again.

    Args:
        size: S. originals: whether experts read pictures as they are. workers: how many are decoded at a time.
    """

    def __init__(self, size: int, limits: Limits, workers: int = 2, *, originals: bool = False) -> None:
        self.size, self.limits, self.originals = size, limits, originals
        self.kept: LRUCache[str, Picture] = LRUCache(KEPT_BYTES, getsizeof=lambda picture: picture.nbytes)
        self._alive: WeakValueDictionary[str, Picture] = WeakValueDictionary()
        self._idle: asyncio.Queue[asyncio.subprocess.Process | None] = asyncio.Queue()
        for _ in range(workers):
            self._idle.put_nowait(None)
        self._started: set[asyncio.subprocess.Process] = set()

    async def read(self, data: bytes) -> Picture:
        """Decode a file.

        Raises:
            ApiError: it cannot be decoded, or not with the time and memory that there are.
        """
        key = hashlib.sha256(data).hexdigest()
        if (known := self.kept.get(key) or self._alive.get(key)) is not None:
            return known
        if self.held_bytes > self.limits.held_bytes:
            raise busy()
        picture = self._alive.setdefault(key, self._picture(key, *await self._decoded(data)))
        if picture.nbytes <= KEPT_BYTES:
            self.kept[key] = picture
        return picture

    @property
    def held_bytes(self) -> int:
        """Bytes of pictures that somebody holds beside this reader."""
        return sum(picture.nbytes for key, picture in list(self._alive.items()) if key not in self.kept)

    def _picture(self, key: str, size: tuple[int, int], pixels: bytes) -> Picture:
        """A picture from what the decoder sends."""
        square, rest = np.split(np.frombuffer(pixels, np.uint8), [3 * self.size**2])
        original = None
        if self.originals:
            width, height = bounded_size(*size)
            original = rest.reshape(3, height, width).copy()
        return picture_of(key, FittedPicture(square.reshape(3, self.size, self.size), original, size))

    async def start(self) -> None:
        """Start all processes, so that the first pictures need not wait for them."""
        for _ in range(self._idle.qsize()):
            idle = self._idle.get_nowait()
            self._idle.put_nowait(idle or await self._start())

    async def close(self) -> None:
        """End all processes."""
        for process in list(self._started):
            await self._end(process)

    async def _decoded(self, data: bytes) -> tuple[tuple[int, int], bytes]:
        """Width and height of a picture, and its pixels as the decoder sends them."""
        worker = await self._idle.get()
        try:
            async with asyncio.timeout(self.limits.picture_seconds):
                worker = worker or await self._start()
                well, size, answer = await self._ask(worker, data)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            await self._end(worker)
            worker = None
            what = "a picture takes more time or memory to decode than it may"
            raise ApiError(400, what, param="messages", code="image_too_costly") from None
        except BaseException:
            # Such as a client that has gone: half an answer may be left in the pipe.
            await self._end(worker)
            worker = None
            raise
        finally:
            self._idle.put_nowait(worker)
        if not well:
            raise ApiError(400, answer.decode("utf-8", "replace"), param="messages", code="invalid_image")
        return size, answer

    async def _ask(self, worker: asyncio.subprocess.Process, data: bytes) -> tuple[bool, tuple[int, int], bytes]:
        source, target = worker.stdout, worker.stdin
        if source is None or target is None:
            raise ConnectionError
        target.write(REQUEST.pack(self.size, self.limits.pixels, self.limits.aspect, self.originals, len(data)))
        target.write(data)
        await target.drain()
        well, width, height, length = REPLY.unpack(await source.readexactly(REPLY.size))
        if length > MESSAGE_BYTES if not well else length != self._length_of(width, height):
            raise ConnectionError  # whatever it is that a picture made of this process, it decodes no more
        return bool(well), (width, height), await source.readexactly(length)

    def _length_of(self, width: int, height: int) -> int | None:
        """Bytes of the pixels of a picture of this size; None where no picture may have it."""
        if not 0 < width * height <= self.limits.pixels:
            return None
        across, down = bounded_size(width, height) if self.originals else (0, 0)
        return 3 * (self.size**2 + across * down)

    async def _start(self) -> asyncio.subprocess.Process:
        # No secret of the environment is of any use for decoding.
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "astrea.serving.decoder", str(self.limits.picture_memory)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the server, which ends this one when it has finished
            env={**kept, "OPENBLAS_NUM_THREADS": "1"},
        )
        self._started.add(process)
        return process

    async def _end(self, process: asyncio.subprocess.Process | None) -> None:
        if process is None:
            return
        self._started.discard(process)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
