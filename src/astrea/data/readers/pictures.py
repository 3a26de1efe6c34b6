"""From a record's image reference to a picture, without ever leaving the image root."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from PIL import Image

from astrea.common.errors import AstreaError
from astrea.common.paths import hint_for, is_folder, refuse_url, size_of
from astrea.data.images import check_image, load_image
from astrea.data.readers.issues import BadRow, printable, quoted
from astrea.data.readers.record import FileImage, ImageRef, InlineImage, MemberImage

MAX_IMAGE_BYTES = 256 << 20
"""The largest image file that is read into memory."""

HEAD = 1 << 16
"""Bytes of a picture that its fingerprint is made of."""

HINTS = 20
"""Missing pictures for which the folder is searched for one of a like name."""

_REMOTE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_ABSOLUTE = re.compile(r"[/\\]|[a-zA-Z]:[/\\]")


class ImageRoot:
    """The folder that the paths of a source's pictures start at, and that they must not leave, by links either.

    Args:
        folder: the folder.
        option: what its user gives it with, as messages name it.

    Raises:
        AstreaError: it is no folder, or a URL.
    """

    def __init__(self, folder: str | Path, option: str = "images") -> None:
        refuse_url(folder)
        self.folder, self.option = Path(folder), option
        if not is_folder(self.folder):
            hint = f"give the folder that the paths start at with {option}"
            raise AstreaError(f"image root {self.folder} is not a folder", hint)
        self.real = self.folder.resolve()
        self._hints_left = HINTS

    def resolve(self, path: str) -> Path:
        """The file that a path of the data means, with every link followed. It need not exist.

        Raises:
            BadRow: the path is empty, a URL, absolute, has a ``..`` in it, or leads out of the root.
        """
        shown = quoted(path)
        if _REMOTE.match(path):
            raise BadRow("image_remote", f"picture {shown} is not on this machine", "download it and write its path")
        if not path.strip() or "\0" in path:
            raise BadRow("image_path", f"picture {shown} is no path", "write the path of the picture")
        if _ABSOLUTE.match(path):
            what = f"picture {shown} is an absolute path"
            hint = f"write it relative to the image root, and give the root with {self.option}"
            raise BadRow("image_path", what, hint)
        if ".." in re.split(r"[/\\]", path):
            raise BadRow("image_path", f"picture {shown} has '..' in its path", "write it relative to the image root")
        try:
            real = (self.real / path).resolve()
        except (OSError, ValueError, RuntimeError):  # a name too long, or links in a circle
            raise _nowhere(path) from None
        if not real.is_relative_to(self.real):
            what = f"picture {shown} leads out of the image root through a link"
            raise BadRow("image_path", what, "copy it into the root, or give a root that holds what the link points to")
        return real

    def read(self, image: ImageRef) -> Path | bytes:
        """What `load_image` takes: the path of a picture in a file of its own, the bytes of any other.

        Raises:
            BadRow: the path is not allowed, or the file is missing or too large.
        """
        if isinstance(image, InlineImage):
            return image.data
        if isinstance(image, MemberImage):
            return _bytes_at(Path(image.shard), image.offset, image.size, name_of(image))
        path = self.resolve(image.path)
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            what = f"picture {quoted(image.path)} does not exist under {self.folder}"
            raise BadRow("image_missing", what, self._hint(image.path)) from None
        except PermissionError:
            return path  # `load_image` says what to do about it
        except OSError:  # a name that no file can have
            raise _nowhere(image.path) from None
        return path

    def _hint(self, path: str) -> str:
        """Why a picture may be missing. A few times, since the folder is listed for it."""
        known = ""
        if self._hints_left > 0:
            self._hints_left -= 1
            known = "write its path with / between folders" if "\\" in path else hint_for(self.real / path)
        return printable(known, 300) or f"correct the path, or give the right root with {self.option}"

    def load(self, image: ImageRef) -> Image.Image:
        """The picture, upright RGB, decoded by `astrea.data.images.load_image`.

        Raises:
            BadRow: it may not be read, is missing, damaged or too large.
        """
        return _load(image, self.read(image))

    def check(self, image: ImageRef, *, decode: bool = False) -> None:
        """See whether the picture could be loaded; without ``decode``, from the file's header alone.

        Raises:
            BadRow: as for `load`.
        """
        source = self.read(image)
        if decode or not _header_is_fine(source):
            _load(image, source)

    def fingerprint(self, image: ImageRef) -> bytes:
        """A fingerprint of this picture, wherever the file is: its size and the beginning of its bytes.

        Raises:
            BadRow: it may not be read or is missing.
        """
        if isinstance(image, MemberImage):
            head = _bytes_at(Path(image.shard), image.offset, min(image.size, HEAD), name_of(image))
            return image.size.to_bytes(8) + head
        source = self.read(image)
        if isinstance(source, bytes):
            return len(source).to_bytes(8) + source[:HEAD]
        head = _bytes_at(source, 0, HEAD, name_of(image))
        return size_of(source).to_bytes(8) + head

    def bytes_of(self, image: ImageRef) -> bytes:
        """The image file itself.

        Raises:
            BadRow: it may not be read, is missing or larger than `MAX_IMAGE_BYTES`.
        """
        source = self.read(image)
        if isinstance(source, bytes):
            return source
        return _bytes_at(source, 0, None, name_of(image))


def name_of(image: ImageRef) -> str:
    """What messages call a picture."""
    name = image.path if isinstance(image, FileImage) else image.name
    return quoted(name) if name or not isinstance(image, InlineImage) else f"of {len(image.data):,} bytes"


def _bytes_at(path: Path, offset: int, size: int | None, name: str) -> bytes:
    """``size`` bytes of a file, or all of it."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(MAX_IMAGE_BYTES + 1 if size is None else min(size, MAX_IMAGE_BYTES + 1))
    except OSError as error:
        what = f"picture {name} cannot be read: {error.strerror or error}"
        raise BadRow("image_missing", what, "check the file and its permissions") from None
    if len(data) > MAX_IMAGE_BYTES:
        what = f"picture {name} has more than {MAX_IMAGE_BYTES:,} bytes"
        raise BadRow("image_corrupt", what, "make the picture smaller")
    return data


def _header_is_fine(source: Path | bytes) -> bool:
    """Whether the header has a known format and a size within the limits; `load_image` gives the reason if not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            check_image(source)
    except AstreaError:
        return False
    return True


def _nowhere(path: str) -> BadRow:
    return BadRow("image_path", f"picture {quoted(path)} is a path that leads nowhere", "correct the path")


def _load(image: ImageRef, source: Path | bytes) -> Image.Image:
    shown = f"picture {name_of(image)}"
    try:
        return load_image(source, name=shown if isinstance(source, bytes) else None)
    except AstreaError as error:
        said = error.message.replace(f"image {source}", shown) if isinstance(source, Path) else error.message
        hint = error.hint[:1].lower() + error.hint[1:].rstrip(".")  # it follows a semicolon here
        raise BadRow("image_corrupt", printable(said, 400), hint) from None
