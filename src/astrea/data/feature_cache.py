"""An on-disk cache for the features of frozen experts: computed once, checked at every use, never trusted blindly.

One entry is two files, ``<fingerprint>.safetensors`` (the features) and ``<fingerprint>.json`` (what they are, their
size and sha256). The features are written first, so the JSON file says that the entry is whole. The file of single
pictures' features (`astrea.data.picture_features`) lies in the same folder, counts as one entry, and shares the limit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from astrea.common.errors import AstreaError
from astrea.common.files import atomic_path, sha256_file, write_json_atomic
from astrea.common.kept_folders import RECORD, described
from astrea.common.paths import exists, is_folder, list_folder, read_bytes, size_of

Features = dict[str, torch.Tensor]

MOST_ABOUT = 16 << 20
"""Bytes of the largest JSON file of an entry that is read."""

_FORMAT = "astrea-features-1"
_ENTRY_FILE = re.compile(r"([0-9a-f]{64})\.(?:safetensors|json|folder)")
PICTURES = "pictures.sqlite"
_PICTURE_FILES = {PICTURES, f"{PICTURES}-wal", f"{PICTURES}-shm"}
_LEFTOVER = re.compile(r"\.[0-9a-f]{64}\..*\.tmp")
_LEFTOVER_AGE = 24 * 3600  # seconds; a younger one may belong to a process that is still writing it


class _BadEntryError(Exception):
    """An entry is there but must not be used; the text says why."""


def canonical_json(key: object) -> str:
    """The one JSON text of a key: sorted, no spaces, ASCII.

    Raises:
        TypeError: the key holds something that JSON has no word for.
        ValueError: the key holds NaN or an infinity.
    """
    return json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def fingerprint(key: dict[str, Any]) -> str:
    """The sha256 (64 hex digits) of a key's canonical JSON. Raises as :func:`canonical_json` does."""
    return hashlib.sha256(canonical_json(key).encode("ascii")).hexdigest()


def _log_event(event: str) -> None:
    """The default for events: a warning in the log."""
    logging.getLogger("astrea.cache").warning(event)


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One stored set of features, the file of all single pictures' (``PICTURES``), or one folder. size: bytes of all
    its files. used: seconds since 1970 when it was last read or written. files: the one that makes an entry whole
    comes first. what: in words, what it is."""

    name: str
    size: int
    used: float
    files: tuple[Path, ...]
    what: str = "expert features"

    @property
    def folder(self) -> Path | None:
        """The folder that the files lie in, if the entry is one."""
        return self.files[0].parent if self.files[0].name == RECORD else None

    def remove(self) -> None:
        """Remove it.

        Raises:
            OSError: a file cannot be removed.
        """
        for path in self.files:
            path.unlink(missing_ok=True)
        if self.folder is not None:
            shutil.rmtree(self.folder)


class FeatureCache:
    """Features kept in ``folder``, which is made when the first entry is stored.

    Several processes may share a folder: files only ever appear whole, and each reader checks what it reads.

    Args:
        most: bytes that the folder's features may take together: entries that this process did not ask for make room,
            those used longest ago first, and where that is not enough nothing more is stored. None: without a limit;
            0: nothing is stored or read.
    """

    def __init__(self, folder: Path, most: int | None = None) -> None:
        self.folder, self.most = Path(folder), most
        self.asked_for: set[str] = set()

    def get_or_compute(
        self,
        key: dict[str, Any],
        compute: Callable[[], Features],
        *,
        on_event: Callable[[str], None] = _log_event,
    ) -> Features:
        """Return the features stored for ``key``; compute and store them when there are none that can be used.

        An entry that is torn, corrupt or belongs to another key is reported and rebuilt, never used. When the cache
        cannot be written (disk full, read-only folder) that is reported and the computed features are returned.

        Args:
            key: everything that the features depend on: the expert's weight hash, the data, the size, the version of
                the feature format. JSON-able.
            compute: makes the features, tensors of any shape by name.
            on_event: called with one sentence for every entry rebuilt and every entry that could not be stored.

        Returns:
            The features on the CPU, detached and contiguous, the same bits whether computed or stored. Stored ones
            are memory-mapped: memory fills as they are read, and writing to them does not change the file.

        Raises:
            TypeError: the key is not JSON-able.
            ValueError: the key holds NaN or an infinity.
            Exception: whatever ``compute`` raises.
        """
        entry = fingerprint(key)
        self.asked_for.add(entry)
        try:
            stored = None if self.most == 0 else self._load(entry, key)
        except _BadEntryError as error:
            on_event(f"The cached features {self._tensors(entry)} cannot be used ({error}); computing them again.")
            stored = None
        if stored is not None:
            return stored
        features = {name: tensor.detach().cpu().contiguous() for name, tensor in compute().items()}
        if not self.has_room(sum(tensor.nbytes for tensor in features.values())):
            if self.most:
                on_event(self.full())
            return features
        try:
            self._store(entry, key, features)
        except (OSError, SafetensorError, ValueError, RuntimeError) as error:
            on_event(
                f"The features could not be cached in {self.folder} ({error}); nothing is lost, but they will be "
                "computed again next time. Free some space there, or choose a folder that can be written."
            )
        return features

    def has_room(self, wanted: int, pictures: int | None = None) -> bool:
        """Whether so many bytes more may be stored, once entries that this process did not ask for made room.

        Args:
            pictures: bytes in use in the file of single pictures' features, for whoever knows better than its size.
        """
        if self.most is None:
            return True
        entries = [entry for entry in self.entries() if entry.folder is None]  # features alone
        if pictures is not None:
            entries = [replace(entry, size=pictures) if entry.name == PICTURES else entry for entry in entries]
        excess = sum(entry.size for entry in entries) + wanted - self.most
        others = [entry for entry in entries if entry.name not in self.asked_for]
        return excess <= 0 or (sum(entry.size for entry in others) >= excess and _remove(others, excess) >= excess)

    def full(self) -> str:
        """What is said when there is no room."""
        return (
            f"{self.folder} has the {(self.most or 0) / 1e9:.3g} GB that it may have: features that are not in it are "
            "computed every time (runtime.feature_cache_gb)"
        )

    def prune(self, keep_bytes: int) -> int:
        """Remove the least recently used entries until what is left takes at most ``keep_bytes``.

        Only files that this class and `astrea.data.picture_features` write are counted and removed, with what
        interrupted writes of over a day ago left behind. A file that cannot be removed (in use, read-only folder) is
        left and still counts.

        Args:
            keep_bytes: the most that the entries may take together; 0 empties the cache.

        Returns:
            The bytes removed, leftovers not counted.
        """
        entries = self.entries()
        return _remove(entries, sum(entry.size for entry in entries) - keep_bytes)

    def entries(self) -> list[CacheEntry]:
        """What is stored, in no particular order; leftovers of interrupted writes of over a day ago are removed."""
        files: dict[str, list[Path]] = {}
        with contextlib.suppress(OSError):
            for path in sorted(self.folder.iterdir()):
                if match := _ENTRY_FILE.fullmatch(path.name):
                    files.setdefault(match[1], []).extend(_files_of(path))
                elif path.name in _PICTURE_FILES:
                    files.setdefault(PICTURES, []).append(path)
                elif _LEFTOVER.fullmatch(path.name) and time.time() - path.stat().st_mtime > _LEFTOVER_AGE:
                    shutil.rmtree(path, ignore_errors=True)
        entries = []
        for name, paths in files.items():
            if not paths:
                continue
            with contextlib.suppress(OSError):  # another process pruned it meanwhile
                status = [path.stat() for path in paths]
                used, size = max(s.st_mtime_ns for s in status) / 1e9, sum(s.st_size for s in status)
                about = {} if paths[0].name != RECORD else {"what": described(paths[0].parent)}
                entries.append(CacheEntry(name, size, used, tuple(paths), **about))
        return entries

    def _tensors(self, entry: str) -> Path:
        return self.folder / f"{entry}.safetensors"

    def _about(self, entry: str) -> Path:
        return self.folder / f"{entry}.json"

    def _load(self, entry: str, key: dict[str, Any]) -> Features | None:
        """The stored features; None when there is no entry; ``_BadEntryError`` when there is one not to be used."""
        tensors, about = self._tensors(entry), self._about(entry)
        try:
            if not exists(tensors) and not exists(about):
                return None
            if not exists(about) or not exists(tensors):
                raise _BadEntryError(f"{(tensors if exists(about) else about).name} is missing")
            record = json.loads(read_bytes(about, MOST_ABOUT))
            _check_record(record, key)
            size = tensors.stat().st_size
            if size != record["bytes"]:
                raise _BadEntryError(f"it is {size} bytes long, not {record['bytes']}")
            if sha256_file(tensors) != record["sha256"]:
                raise _BadEntryError("its sha256 is not the recorded one")
            features = load_file(tensors)
        except AstreaError as error:
            raise _BadEntryError(error.message) from error
        except (OSError, ValueError, RecursionError, SafetensorError) as error:  # the middle two: not proper JSON
            raise _BadEntryError(str(error)) from error
        # The time of last use, for prune(). Access times are switched off on many disks; a read-only folder has none.
        with contextlib.suppress(OSError):
            os.utime(about)
        return features

    def _store(self, entry: str, key: dict[str, Any], features: Features) -> None:
        """Write one entry, features first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = self._tensors(entry)
        with atomic_path(tensors) as temporary:
            save_file(_unshared(features), temporary)
            record = {
                "format": _FORMAT,
                "key": key,
                "bytes": size_of(temporary),
                "sha256": sha256_file(temporary),
                "tensors": {
                    name: {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
                    for name, tensor in features.items()
                },
            }
        write_json_atomic(self._about(entry), record)


def _files_of(path: Path) -> list[Path]:
    """The files of one name of an entry: itself, or what a folder holds, its record first; none of a damaged one."""
    if path.suffix != ".folder":
        return [path]
    held = list_folder(path) if is_folder(path) else []
    return sorted(held, key=lambda one: one.name != RECORD) if path / RECORD in held else []


def _remove(entries: list[CacheEntry], excess: int) -> int:
    """Remove the least recently used of some entries until at least so many bytes are gone; the bytes that are."""
    removed = 0
    for entry in sorted(entries, key=lambda entry: entry.used):
        if removed >= excess:
            break
        with contextlib.suppress(OSError):
            entry.remove()
            removed += entry.size
    return removed


def _check_record(record: object, key: dict[str, Any]) -> None:
    """Refuse a JSON file that another program, another version or another key made."""
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise _BadEntryError(f"its JSON file is not of the format {_FORMAT}")
    if canonical_json(record.get("key")) != canonical_json(key):
        raise _BadEntryError("it belongs to another key")
    if not isinstance(record.get("bytes"), int) or not isinstance(record.get("sha256"), str):
        raise _BadEntryError("its JSON file lacks the size or the sha256")


def _unshared(features: Features) -> Features:
    """The same features with storage of their own each: safetensors refuses tensors that share memory."""
    seen: set[int] = set()
    result = {}
    for name, tensor in features.items():
        place = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return result
