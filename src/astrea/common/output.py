"""What commands write: lines and JSON on standard output, pictures into files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from astrea.common.errors import AstreaError
from astrea.common.files import finite_or_null
from astrea.common.paths import file_guard
from astrea.common.terminal import PlainConsole

if TYPE_CHECKING:
    from PIL.Image import Image

out = PlainConsole()
err = PlainConsole(stderr=True)
"""What is said beside a result: a pipe does not get it."""


def print_path(what: str, path: Path) -> None:
    """Where something lies, in one line that can be copied."""
    out.print(f"{what + ':':<8} {path}", highlight=False, soft_wrap=True)


def save_picture(picture: Image, path: Path) -> None:
    """Write a picture in the format that the path's ending names."""
    with file_guard(path):
        try:
            picture.save(path)
        except (ValueError, KeyError) as error:  # Pillow knows no such ending, or can only read that format
            raise AstreaError(f"{path}: no picture can be written under this name", "end it in .png") from error


def print_json(value: object) -> None:
    """Plain JSON on standard output, whatever the terminal's width; what is NaN was not measured and is null."""
    sys.stdout.write(json.dumps(finite_or_null(value), indent=2, allow_nan=False) + "\n")
