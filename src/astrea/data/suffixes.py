"""What picture files are called: the endings that `astrea.data.images` reads, and those it does not."""

from __future__ import annotations

from pathlib import PurePath

READ = (
    *(".jpg", ".jpeg", ".jpe", ".jfif"),
    *(".png", ".apng"),
    *(".webp", ".gif", ".bmp"),
    *(".tif", ".tiff"),
)
"""In small letters."""

NOT_READ = (
    *(".avif", ".avifs", ".heic", ".heif", ".jp2", ".j2k", ".jxl", ".svg", ".psd", ".ico", ".tga", ".ppm", ".pgm"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw", ".eps"),
)
"""Pictures of other formats, which are reported rather than ignored."""

CLUTTER = frozenset({".ds_store", "thumbs.db", "desktop.ini", "__macosx"})
"""What systems leave beside people's files, in small letters."""


def is_clutter(path: str) -> bool:
    """Whether a path is something that macOS or Windows put there: AppleDouble files (``._name``), folder settings."""
    parts = PurePath(path.lower()).parts
    return bool(parts) and (parts[-1].startswith("._") or not CLUTTER.isdisjoint(parts))
