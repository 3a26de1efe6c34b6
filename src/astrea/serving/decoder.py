"""The process that decodes pictures, which may come from anyone: it has little memory, cannot write files, and answers
with pixels or a sentence, never with objects. Run as ``python -m astrea.serving.decoder MEMORY``."""

from __future__ import annotations

import io
import struct
import sys
from typing import BinaryIO

from PIL import Image

from astrea.common.errors import AstreaError
from astrea.data.fitted import FittedPicture, fit_picture
from astrea.data.images import load_image

REQUEST = struct.Struct("<IQd?Q")
"""Side of the square, most pixels, largest aspect, whether the picture as it is is wanted too, bytes of the file that
follows."""

REPLY = struct.Struct("<?IIQ")
"""Whether it went well; width and height of the picture; bytes of what follows: the pixels of the square (3, side,
side), then those of the picture as it is (3, height, width) if it is wanted; or a message."""


def decoded(data: bytes, side: int, most_pixels: int, aspect: float, original: bool) -> FittedPicture:
    """A picture's file in the form in which experts are given it.

    Raises:
        AstreaError: it cannot be read, or is too large or too narrow.
    """
    picture = load_image(data, max_pixels=most_pixels, name="the picture")
    if max(picture.size) > aspect * min(picture.size):
        raise AstreaError(f"the picture is {picture.width:,} x {picture.height:,}: too narrow", "cut it")
    return fit_picture(picture, side, original=original)


def answer(source: BinaryIO, target: BinaryIO) -> bool:
    """Decode one picture; false when there are no more."""
    head = source.read(REQUEST.size)
    if len(head) < REQUEST.size:
        return False
    side, most_pixels, aspect, original, length = REQUEST.unpack(head)
    data = source.read(length)
    well, size = False, (0, 0)
    try:
        found = decoded(data, side, most_pixels, aspect, original)
        parts = [part.tobytes() for part in (found.square, found.original) if part is not None]
        well, size = True, found.size
    except AstreaError as error:
        parts = [error.message.encode("utf-8", "replace")]
    except MemoryError:
        parts = [b"the picture needs more memory than it may have"]
    target.write(REPLY.pack(well, *size, sum(map(len, parts))))
    for part in parts:
        target.write(part)
    target.flush()
    return True


def confine(memory: int) -> None:
    """Give up what decoding a picture does not need: memory beyond so many bytes, writing files, opening more of them
    than are open now."""
    import resource

    # Formats are known by modules that are loaded when the first picture comes; afterwards no file is opened.
    Image.init()
    for kind, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(kind, (most, most))
    # Descriptors 0 to 2 are open; a limit of 3 lets no other be opened, neither files nor connections.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))


def main() -> None:
    """Decode pictures until there are no more."""
    decoded(_sample(), 8, 100, 10.0, True)  # whatever is loaded late is loaded now
    confine(int(sys.argv[1]))
    while answer(sys.stdin.buffer, sys.stdout.buffer):
        pass


def _sample() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 4)).save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    main()
