"""Reading untrusted images: upright, RGB, 8 bits, or an ``AstreaError`` that says what is wrong.

The size is read from the header and held to a limit before any pixel is decoded, because a file of a few kilobytes can
ask for gigabytes of memory.
"""

from __future__ import annotations

import contextlib
import io
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from astrea.common.errors import AstreaError, shortened
from astrea.common.letterbox import inner_size
from astrea.common.paths import hint_for
from astrea.data.image_limits import Costly, check_memory, check_size, check_structure, exif_is_bounded
from astrea.data.image_modes import to_rgb

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 64_000_000
ORIGINAL_PIXELS = 1 << 21
"""An expert that reads pictures as they are is given this many pixels at most: 1448 x 1448."""

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/")  # a path object has only one of the slashes
_FORMATS_TEXT = ", ".join(FORMATS[:-1]) + " or " + FORMATS[-1]
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(
    source: str | Path | bytes | Image.Image, *, max_pixels: int = MAX_PIXELS, name: str | None = None
) -> Image.Image:
    """Load one image as RGB, 8 bits a channel, turned upright by its EXIF orientation.

    Only the first frame of an animation or of a multi-page file is read (an image object is taken at the frame it
    shows). Transparency is laid over white. 16-bit grey is divided by 256, not clipped. The result is a new image
    that carries no metadata, so loading it again changes nothing.

    Args:
        source: a path, the bytes of a JPEG, PNG, WEBP, GIF, BMP or TIFF file, or a Pillow image of any mode.
        max_pixels: the most pixels (width x height) to accept; Pillow's own ``Image.MAX_IMAGE_PIXELS`` holds as well.
        name: what errors call the image, for example ``"sample 17 of train.jsonl"``. A path is always named too.

    Returns:
        The image, mode ``RGB``.

    Raises:
        AstreaError: the file is missing, a folder, empty, unreadable, truncated, damaged or not an image, or the
            image is larger than allowed.
    """
    if isinstance(source, Image.Image):
        _check_limits(source, name or "the image", max_pixels)
        return _decode(source, name or "the image")
    with _file_of(source, name) as (file, label), _opened(file, label, max_pixels) as image:
        return _decode(image, label, ours=True)


def load_cut_out(path: Path) -> Image.Image:
    """An image file with its transparency, under the same limits as `load_image`.

    Returns:
        The image, mode ``RGBA``.

    Raises:
        AstreaError: as `load_image`.
    """
    with _file_of(path, None) as (file, label), _opened(file, label, MAX_PIXELS) as image:
        try:
            return image.convert("RGBA")
        except Exception as error:  # damaged data makes the decoders raise nearly any type
            raise _damaged(label, error) from error


def check_image(source: str | Path | bytes) -> None:
    """Whether `load_image` would begin to decode a file, by its structure and size alone.

    Raises:
        AstreaError: as `load_image`, except that damage to the pixels is not seen.
    """
    with _file_of(source, None) as (file, label):
        _opened(file, label, MAX_PIXELS).close()


def to_square_array(image: Image.Image, size: int) -> np.ndarray:
    """Fit an image into a square without changing its proportions, centred, the rest filled with its edge colour.

    The fill is the mean colour of the outermost pixels, which gives an expert no hard border to look at. An image that
    is ``size`` x ``size`` already comes back pixel for pixel.

    Args:
        image: any Pillow image; one that is not RGB goes through :func:`load_image` first.
        size: side of the square in pixels, at least 1.

    Returns:
        Array of shape (size, size, 3), dtype uint8, that the caller may write to.

    Raises:
        AstreaError: ``size`` is below 1, or the image cannot be read.
    """
    if size < 1:
        raise AstreaError(f"the square side is {size}", "Give a side of at least 1 pixel.")
    if image.mode != "RGB" or 0 in image.size:
        image = load_image(image)
    if image.size == (size, size):
        return np.array(image)
    width, height = inner_size(*image.size, size)
    inner = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    edge = np.concatenate([inner[0], inner[-1], inner[:, 0], inner[:, -1]])
    square = np.empty((size, size, 3), dtype=np.uint8)
    square[:] = np.round(edge.mean(axis=0)).astype(np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = inner
    return square


def to_bounded_array(image: Image.Image, most: int = ORIGINAL_PIXELS) -> np.ndarray:
    """An image as it is, but with no more than ``most`` pixels.

    Returns:
        Array of shape (height, width, 3), dtype uint8, in the image's own proportions.

    Raises:
        AstreaError: the image cannot be read.
    """
    if image.mode != "RGB" or 0 in image.size:
        image = load_image(image)
    size = bounded_size(*image.size, most)
    return np.array(image if size == image.size else image.resize(size, Image.Resampling.BICUBIC))


def bounded_size(width: int, height: int, most: int = ORIGINAL_PIXELS) -> tuple[int, int]:
    """Width and height of what `to_bounded_array` makes of an image."""
    factor = (most / (width * height)) ** 0.5
    if factor >= 1:
        return width, height
    return min(most, max(1, int(width * factor))), min(most, max(1, int(height * factor)))


@contextlib.contextmanager
def _file_of(source: Any, name: str | None) -> Iterator[tuple[BinaryIO, str]]:
    """A path or bytes as an open file, and what errors call it."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        label = name or f"the image ({len(source):,} bytes)"
        if not len(source):
            raise AstreaError(f"{label} is empty (0 bytes)", "Give the bytes of a whole image file.")
        yield io.BytesIO(source), label
        return
    if not isinstance(source, (str, Path)):
        raise AstreaError(
            f"{name or 'the image'} is a {type(source).__name__}",
            "Give a path, the bytes of an image file, or a Pillow image.",
        )
    path = Path(source)
    label = f"{name}: image {path}" if name else f"image {path}"
    with _open_file(path, label) as file:
        yield file, label


@contextlib.contextmanager
def _open_file(path: Path, label: str) -> Iterator[BinaryIO]:
    """Open an ordinary, non-empty file, or say why not."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise AstreaError(f"{label} is a folder", "Give the path of one image file.")
        if not stat.S_ISREG(status.st_mode):
            # Opening a pipe or a device could wait for ever.
            raise AstreaError(f"{label} is not an ordinary file", "Give the path of one image file.")
        if status.st_size == 0:
            raise AstreaError(f"{label} is empty (0 bytes)", "Copy or download the file again.")
        file = path.open("rb")
    except FileNotFoundError:
        raise _not_found(path, label) from None
    except PermissionError:
        raise AstreaError(
            f"{label} may not be read: permission denied", "Give this user read permission to it and to its folders."
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        if _URL.match(str(path)):
            raise _not_found(path, label) from None
        why = error.strerror if isinstance(error, OSError) and error.strerror else shortened(str(error))
        what = f"{label.replace(str(path), shortened(str(path)))} cannot be opened: {why}"
        raise AstreaError(what, "Check the path and the disk it is on.") from error
    with file:
        yield file


def _not_found(path: Path, label: str) -> AstreaError:
    """A file that is not there may be a URL, or a text that was never a path."""
    if _URL.match(str(path)):
        shown = label.replace(str(path), shortened(str(path)))
        return AstreaError(f"{shown} is a URL, and URLs are not fetched", "Download it and give the file's path.")
    # Base64 has no dot in it, and is not to be quoted.
    shown = label if "." in path.name else label.replace(str(path), shortened(str(path)))
    hint = hint_for(path) if "." in path.name else ""
    return AstreaError(f"{shown} does not exist", hint or "Check the path; relative paths start at the current folder.")


def _opened(file: BinaryIO, label: str, max_pixels: int) -> Image.Image:
    """The image in ``file``, of which nothing but its header is read, and that may be decoded."""
    try:
        check_structure(file)
        image = Image.open(file, formats=FORMATS)
    except Costly as error:
        raise _costly(label, error) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        # Far above Pillow's own limit it raises without telling the size; users should still see it.
        raise _too_large(label, _size_in_header(file), max_pixels) from None
    except UnidentifiedImageError:
        raise AstreaError(
            f"{label} is not a {_FORMATS_TEXT} file, or its beginning is damaged",
            "Check what the file really is (its ending does not count) and convert it, or copy it again.",
        ) from None
    except Exception as error:  # damaged headers make Pillow raise nearly any type
        raise _damaged(label, error) from error
    try:
        _check_limits(image, label, max_pixels)
    except AstreaError:
        image.close()
        raise
    return image


def _check_limits(image: Image.Image, label: str, max_pixels: int) -> None:
    """Whether an opened image is small enough to be decoded."""
    width, height = image.size
    if width < 1 or height < 1:
        raise AstreaError(f"{label} has no pixels: its size is {width} x {height}", "Give an image of at least 1 x 1.")
    if width * height > _limit(max_pixels):
        raise _too_large(label, image.size, max_pixels)
    try:
        check_size(width, height)
        check_memory(image)
    except Costly as error:
        raise _costly(label, error) from None


def _decode(image: Image.Image, label: str, *, ours: bool = False) -> Image.Image:
    """Decode an opened image and bring it to upright RGB; if it is ``ours``, it is closed as soon as possible."""
    try:
        image.load()
        turn = _UPRIGHT.get(_orientation(image))
        rgb = to_rgb(image)
        if ours:
            image.close()  # turning needs its memory
        if turn is not None:
            rgb = rgb.transpose(turn)
    except Exception as error:  # damaged data makes the decoders raise nearly any type
        raise _damaged(label, error) from error
    # An EXIF block that survived would turn the image a second time when it is loaded again.
    rgb.info = {}
    return rgb


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8. A damaged EXIF block is ignored, as image viewers do: the pixels are fine."""
    try:
        exif = image.info.get("exif")
        if exif is None and "Raw profile type exif" in image.info:
            exif = bytes.fromhex("".join(image.info["Raw profile type exif"].split("\n")[3:]))
        value = image.getexif().get(_ORIENTATION_TAG, 1) if exif_is_bounded(exif or b"") else 1
    except Exception:  # the EXIF reader raises nearly any type as well
        return 1
    return value if isinstance(value, int) else 1


def _size_in_header(file: BinaryIO) -> tuple[int, int] | None:
    """The size that the header gives, without Pillow's own limit, or None."""
    file.seek(0)
    prefix = file.read(16)
    for format_name in FORMATS:
        factory, accept = Image.OPEN[format_name]
        if accept is None or accept(prefix) is True:
            with contextlib.suppress(Exception):
                file.seek(0)
                return factory(file, "").size
    return None


def _limit(max_pixels: int) -> int:
    """The limit in force. What Pillow would only warn of (a possible decompression bomb) counts as too large."""
    return min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels)


def _too_large(label: str, size: tuple[int, int] | None, max_pixels: int) -> AstreaError:
    limit = _limit(max_pixels)
    what = f"{size[0]:,} x {size[1]:,} = {size[0] * size[1]:,} pixels" if size else "more pixels than allowed"
    hint = "Make the image smaller"
    hint += ", or raise max_pixels." if limit == max_pixels else ", or raise PIL.Image.MAX_IMAGE_PIXELS."
    return AstreaError(f"{label} is too large: {what}; the limit is {limit:,} pixels", hint)


def _costly(label: str, error: Costly) -> AstreaError:
    return AstreaError(f"{label} {error}", "Save the picture again, smaller, with any image program.")


def _damaged(label: str, error: Exception) -> AstreaError:
    if isinstance(error, MemoryError):
        return AstreaError(f"{label} needs more memory than there is", "Free some memory, or lower max_pixels.")
    reason = str(error).strip() or type(error).__name__
    return AstreaError(
        f"{label} is damaged or cut short: {reason}", "Copy or download the file again, or leave it out of the data."
    )
