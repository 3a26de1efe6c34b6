"""An index folder on the disk: segments that appear whole or not at all.

    manifest.json                the index: which picture is in which row
    vectors-<16 hex>.safetensors its vectors, named after their sha256
    part-<number>.json           what an indexing that is going on, or was killed, has done so far
    lock                         held while an indexing is going on

The manifest is replaced in one step after its vectors are on the disk; files that nothing names any more go last.

Letters: N pictures, P width of a vector.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from astrea.common.errors import AstreaError
from astrea.common.files import atomic_path, sha256_file
from astrea.common.paths import is_file, is_folder, list_folder
from astrea.retrieval.manifest import REBUILD, Entry, Manifest, ModelId, Unread, Vectors, read_manifest, write_manifest

MANIFEST = "manifest.json"
FOLDER = ".astrea-index"
"""Name of the index of a folder of pictures, within it, unless another place is given."""

TENSOR = "vectors"
_OURS = re.compile(r"vectors-([0-9a-f]{16}|new)\.safetensors|part-\d{6}\.json|\.(vectors-|part-|manifest).*\.tmp|lock")
_PART = re.compile(r"part-\d{6}\.json")
_LENGTH = 1e-2
"""How far from 1 the length of a vector may be."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A manifest and its vectors (N, P) float32."""

    manifest: Manifest
    vectors_NP: np.ndarray


def is_index(folder: Path) -> bool:
    """Whether a folder holds a whole index (or what claims to be one)."""
    return is_file(folder / MANIFEST)


def is_begun(folder: Path) -> bool:
    """Whether a folder holds an index, or what an indexing that was stopped left of one."""
    return is_folder(folder) and any(
        path.name == MANIFEST or _OURS.fullmatch(path.name) for path in list_folder(folder)
    )


def pictures_folder(index: Path, manifest: Manifest) -> Path:
    """Where the pictures of an index lie."""
    return Path(os.path.normpath(index / manifest.pictures))


def relative_to_index(pictures: Path, index: Path) -> str:
    """How the manifest names the folder of pictures, so that both can be moved together."""
    here, there = index.resolve(), pictures.resolve()
    try:
        return Path(os.path.relpath(there, here)).as_posix()
    except ValueError:  # another drive
        return there.as_posix()


def read_segment(folder: Path, name: str = MANIFEST) -> Segment:
    """A segment, every byte of it checked.

    Raises:
        AstreaError: a file is missing, altered or damaged. Names it.
    """
    manifest = read_manifest(folder / name)
    if manifest.vectors is None:
        return Segment(manifest, np.zeros((0, manifest.width), np.float32))
    path = folder / manifest.vectors.file
    wanted = (manifest.count, manifest.width)
    try:
        if sha256_file(path) != manifest.vectors.sha256:
            raise AstreaError(f"{path} is not the file that {name} was written with", REBUILD)
        with safe_open(path, framework="np") as file:
            found = file.get_slice(TENSOR)
            if (tuple(found.get_shape()), found.get_dtype()) != (wanted, "F32"):
                raise AstreaError(f"{path} holds no {wanted[0]} float32 vectors of width {wanted[1]}", REBUILD)
            vectors = file.get_tensor(TENSOR)
    except FileNotFoundError as error:
        raise AstreaError(f"{path} is missing", REBUILD) from error
    except OSError as error:
        raise AstreaError(f"{path} cannot be read: {error.strerror or error}", "check its permissions") from error
    except SafetensorError as error:
        raise AstreaError(f"{path} is damaged: {error}", REBUILD) from error
    if not sound(vectors).all():
        raise AstreaError(f"{path} holds vectors that are not of length 1", REBUILD)
    return Segment(manifest, vectors)


def write_segment(
    folder: Path,
    name: str,
    model: ModelId,
    pictures: str,
    entries: list[Entry],
    vectors_NP: np.ndarray,
    *,
    unread: Sequence[Unread] = (),
    locked: Sequence[str] = (),
) -> Manifest:
    """Write a segment: its vectors first, then the manifest that makes them count. Raises OSError."""
    named = None
    if entries:
        with atomic_path(folder / "vectors-new.safetensors") as temporary:
            save_file({TENSOR: np.ascontiguousarray(vectors_NP, np.float32)}, temporary)
            digest = sha256_file(temporary)
            named = Vectors(file=f"vectors-{digest[:16]}.safetensors", sha256=digest)
        os.replace(folder / "vectors-new.safetensors", folder / named.file)
    width = int(vectors_NP.shape[1])
    manifest = Manifest(
        model=model,
        width=width,
        count=len(entries),
        pictures=pictures,
        vectors=named,
        entries=entries,
        unread=list(unread),
        locked=list(locked),
    )
    write_manifest(folder / name, manifest)
    return manifest


def sound(vectors_NP: np.ndarray) -> np.ndarray:
    """Which vectors are finite and of length 1: (N,) bool."""
    with np.errstate(invalid="ignore", over="ignore"):
        found: np.ndarray = np.abs(np.linalg.norm(vectors_NP, axis=1) - 1) < _LENGTH
        return found


def is_below(name: str, folders: Iterable[str]) -> bool:
    """Whether a path is one of ``folders`` or lies below one; all relative, with forward slashes."""
    return any(folder == "." or name == folder or name.startswith(f"{folder}/") for folder in folders)


def part_names(folder: Path) -> list[str]:
    """The parts that an unfinished indexing left, in order."""
    return [path.name for path in list_folder(folder) if _PART.fullmatch(path.name)]


def clean(folder: Path, keep: Iterable[str]) -> None:
    """Remove everything that an index consists of and nothing names any more; other files are left alone."""
    keeping = {*keep, MANIFEST, "lock"}
    for path in list_folder(folder):
        if path.name in keeping or not _OURS.fullmatch(path.name):
            continue
        if is_folder(path):
            for leftover in list_folder(path):
                leftover.unlink()
            path.rmdir()
        else:
            path.unlink()
