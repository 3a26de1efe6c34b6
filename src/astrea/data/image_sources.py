"""Whatever people hand over as a picture -> one upright RGB Pillow image.

Paths and ``file://`` URLs, ``data:`` URLs and plain base64, bytes, open files, Pillow images, arrays and tensors in
either layout, and the ``{bytes, path}`` of the datasets library. All of them are decoded by
`astrea.data.images.load_image`, under its limits. Nothing is ever fetched over a network.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from PIL import Image

from astrea.common.errors import AstreaError, shortened
from astrea.common.paths import refuse_url
from astrea.data.images import load_image

MAX_BYTES = 256 << 20
"""The most bytes of a picture that comes as text or from an open file."""

CHANNELS = (1, 3, 4)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]{32,}={0,2}\s*")
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")
_ROUNDING = 1e-3


def read_image(source: Any, *, name: str | None = None, channels_first: bool | None = None) -> Image.Image:
    """One picture of any kind.

    Args:
        source: a path, as text or `Path`; a ``file://`` or ``data:`` URL; the base64 of an image file; its bytes, or an
            open binary file; a Pillow image; an array or tensor of shape (H, W), (H, W, C) or (C, H, W) with C = 1, 3
            or 4, of integers in 0..255 or floats in 0..1; a mapping with ``bytes`` or ``path``.
        name: what errors call it, such as ``"image 2 of 3"``.
        channels_first: the layout of an array whose first and last sizes could both be C. None = as its library has
            it: channels first in tensors, last in arrays.

    Returns:
        The image, mode ``RGB``.

    Raises:
        AstreaError: it is none of these, damaged, too large, or somewhere on a network.
    """
    label = name or "the image"
    if isinstance(source, str):
        source = _from_text(source, label)
    elif isinstance(source, Mapping):
        source = _from_mapping(source, label)
    elif hasattr(source, "__array__") and not isinstance(source, Image.Image):
        source = _from_array(source, label, channels_first)
    elif hasattr(source, "read"):
        source = _from_file(source, label)
    return load_image(source, name=name)


def _from_text(text: str, label: str) -> str | Path | bytes:
    """A path, or the bytes that the text itself holds."""
    if text[:5].lower() == "data:":
        head, comma, body = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise AstreaError(f"{label} is a data: URL without base64", "write it as data:image/png;base64,...")
        return decoded(body, f"{label}, a data: URL,")
    if text[:5].lower() == "file:":
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise AstreaError(f"{label}, {shortened(text)!r}, is on another machine", "copy it to this machine")
        return Path(url2pathname(parts.path))
    refuse_url(text, f"{label}, ")
    return decoded(text, f"{label}, base64 text,") if _is_base64(text) else text


def decoded(body: str, label: str) -> bytes:
    """The bytes of a base64 text, of either alphabet, padded or not, broken into lines or not.

    Raises:
        AstreaError: it is damaged or too large. Never quotes it.
    """
    if len(body) > MAX_BYTES * 4 // 3:
        raise AstreaError(f"{label} has more than {MAX_BYTES:,} bytes", "make the picture smaller")
    plain = "".join(body.split()).rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        raise AstreaError(f"{label} is damaged base64", "encode the picture again") from None


def _is_base64(text: str) -> bool:
    """Whether a text is the base64 of an image file rather than a path: by its letters and the file's first bytes."""
    if len(text) < 32 or not _BASE64.fullmatch(text):
        return False
    first = base64.b64decode("".join(text[:64].split())[:16].translate(str.maketrans("-_", "+/")) + "==")
    return first.startswith(_BEGINNINGS) or (first.startswith(b"BM") and first[6:10] == bytes(4))


def _from_mapping(given: Mapping[Any, Any], label: str) -> str | Path | bytes:
    """The datasets library's form of a picture that is not decoded yet."""
    data, path = given.get("bytes"), given.get("path")
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    if isinstance(path, Path):
        return path
    if isinstance(path, str):
        return _from_text(path, label)
    keys = shortened(", ".join(map(str, list(given)[:4])))
    raise AstreaError(f"{label} is a mapping of {keys}", "give one with bytes, or with a path")


def _from_file(file: Any, label: str) -> bytes:
    try:
        data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise AstreaError(f"{label} cannot be read: {error}", "open the file again") from error
    if not isinstance(data, bytes):
        raise AstreaError(f"{label} is a file opened as text", 'open it in mode "rb"')
    if len(data) > MAX_BYTES:
        raise AstreaError(f"{label} has more than {MAX_BYTES:,} bytes", "make the picture smaller")
    return data


def _from_array(given: Any, label: str, channels_first: bool | None) -> Image.Image:
    """An array or tensor as a Pillow image of mode L, RGB or RGBA."""
    tensor = hasattr(given, "detach")
    try:
        if tensor:
            given = given.detach().cpu()
            given = given.float() if given.is_floating_point() else given  # NumPy knows no bfloat16
        array = np.asarray(given)
    except Exception as error:  # tensors of special kinds have no values, or raise their own errors
        raise AstreaError(
            f"{label}, a {type(given).__name__}, gives no values: {shortened(str(error))}",
            "pass ordinary numbers that are in memory",
        ) from error
    values = _channels_last(array, label, tensor if channels_first is None else channels_first)
    return Image.fromarray(np.ascontiguousarray(_as_bytes(values, label)))


def _channels_last(array: np.ndarray, label: str, first: bool) -> np.ndarray:
    """(H, W), (H, W, 3) or (H, W, 4) of any layout; ``first``: what to take where both would do."""
    if array.ndim == 3:
        ends = (array.shape[0] in CHANNELS, array.shape[2] in CHANNELS)
        if ends[0] and (first or not ends[1]):
            array = array.transpose(1, 2, 0)
        if array.shape[2] == 1:
            array = array[..., 0]
    if 0 in array.shape or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise AstreaError(
            f"{label} is an array of shape {array.shape}",
            "pass (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels C",
        )
    return array


def _as_bytes(values: np.ndarray, label: str) -> np.ndarray:
    """The same values as uint8."""
    if values.dtype == np.uint8:
        return values
    kind = values.dtype.kind
    low, high = (values.min(), values.max()) if kind in "iuf" else (0, 0)
    if kind in "iu" and low >= 0 and high <= 255:
        return values.astype(np.uint8)
    if kind == "f" and low >= -_ROUNDING and high <= 1 + _ROUNDING:  # false for NaN
        return np.clip(np.round(values * np.float32(255)), 0, 255).astype(np.uint8)
    what = f"{label} is an array of {values.dtype}"
    if kind in "iuf":
        what += f" with values from {low:.4g} to {high:.4g}"
    raise AstreaError(what, "pass integers in 0..255, or floats in 0..1 that are not normalised")
