"""What an index knows of its pictures: one strict JSON file beside the vectors, believed only after a check.

A whole index is a *segment*: a manifest, and the safetensors file of vectors that it names with its sha256. While an
index is being made, what is done so far lies in further segments of the same form, so that nothing is lost with the
process and nothing half-written is ever read.

Letters: N pictures, P width of a vector.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from astrea.common.errors import AstreaError
from astrea.common.files import write_atomic

MAX_BYTES = 1 << 29
"""Of a manifest; enough for some three million pictures."""

REBUILD = "make the index anew: astrea index with --rebuild"

Digest = Field(pattern="^[0-9a-f]{64}$")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Entry(_Part):
    """One picture, in the row of its vector.

    path: relative to the folder of pictures, with forward slashes. size in bytes; mtime_ns: when it was last written,
    or -1 where that was too short before it was read to tell a later change; sha256 of its bytes.
    """

    path: str = Field(min_length=1, max_length=4096)
    size: int = Field(ge=0)
    mtime_ns: int
    sha256: str = Digest

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        where = Path(path)
        if where.is_absolute() or where.drive or where.root or ".." in where.parts or "\0" in path:
            raise ValueError(f"{path!r} leads out of the folder of pictures")
        return path


class Unread(_Part):
    """A picture that could not be read, as it was then: until it changes, it is not reported again. Attributes as
    `Entry` has them."""

    path: str = Field(min_length=1, max_length=4096)
    size: int = Field(ge=0)
    mtime_ns: int


class ModelId(_Part):
    """Which model made the vectors: what identifies it, and what its folder was called."""

    fingerprint: str = Digest
    name: str


class Vectors(_Part):
    """The file of vectors (N, P), float32, each of length 1."""

    file: str = Field(pattern=r"^vectors-[0-9a-f]{16}\.safetensors$")
    sha256: str = Digest


class Manifest(_Part):
    """An index, or a part of one being made.

    pictures: the folder of pictures, relative to the index folder where that is possible. unread: pictures in it that
    have no vector. locked: folders in it that could not be looked into; what was known of them is kept.
    """

    format: Literal["astrea-index-1"] = "astrea-index-1"
    model: ModelId
    width: int = Field(ge=1, le=1 << 16)
    count: int = Field(ge=0)
    pictures: str
    vectors: Vectors | None
    entries: list[Entry]
    unread: list[Unread] = []
    locked: list[str] = []

    @model_validator(mode="after")
    def _adds_up(self) -> Manifest:
        if self.count != len(self.entries):
            raise ValueError(f"count is {self.count}, but there are {len(self.entries)} entries")
        if (self.vectors is None) != (self.count == 0):
            raise ValueError("a file of vectors is named if and only if there are entries")
        twice = [path for path, times in Counter(entry.path for entry in self.entries).items() if times > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} is listed twice")
        return self


def read_manifest(path: Path) -> Manifest:
    """A manifest, checked.

    Raises:
        AstreaError: it is missing, too large, not JSON, or not what a manifest says. Names the file.
    """
    try:
        if not path.is_file():
            raise AstreaError(f"{path} is missing", REBUILD)
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise AstreaError(f"{path} has {size:,} bytes; at most {MAX_BYTES:,} are read", REBUILD)
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise AstreaError(f"{path} cannot be read: {error.strerror or error}", "check its permissions") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise AstreaError(f"{path} is damaged or of another version: {where}: {first['msg']}", REBUILD) from error


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest atomically. Raises OSError."""
    write_atomic(path, manifest.model_dump_json().encode() + b"\n")
