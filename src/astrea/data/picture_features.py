"""A cache on disk of the features of single pictures, so that a frozen expert encodes each picture once.

One SQLite file beside the other cached features. Keys are hashes of a picture's pixels and of an expert's weights and
code, so entries cannot be stale; every entry has a checksum. If the file is damaged, pictures are encoded again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from astrea.common.errors import AstreaError
from astrea.common.fingerprint import tensors_fingerprint
from astrea.common.paths import exists, is_file
from astrea.data.feature_cache import PICTURES, FeatureCache
from astrea.experts.feature_tensors import feature_tensors
from astrea.experts.protocol import ExpertFeatures
from astrea.experts.source_hash import source_hash

FORMAT = 1
"""Version of the format: increase it when code makes other features of the same pixels and weights."""
PATIENCE = 30
"""Seconds to wait for another process that is writing."""
TABLE = (
    "CREATE TABLE IF NOT EXISTS seen (expert BLOB NOT NULL, picture BLOB NOT NULL, checksum BLOB NOT NULL, "
    "tensors BLOB NOT NULL, UNIQUE (expert, picture))"
)


def picture_key(pixels_3HW: Tensor) -> bytes:
    """The key of a picture: a hash of its size and pixels."""
    digest = hashlib.blake2b(repr(tuple(pixels_3HW.shape)).encode(), digest_size=16)
    digest.update(pixels_3HW.contiguous().numpy().data)
    return digest.digest()


def expert_key(expert: nn.Module, options: object) -> bytes:
    """The key of an expert: a hash of its class, code, options and weights."""
    kind = type(expert)
    about = [FORMAT, f"{kind.__module__}.{kind.__qualname__}", source_hash(kind), options]
    described = json.dumps([*about, tensors_fingerprint(expert.state_dict())], sort_keys=True, default=str)
    return hashlib.blake2b(described.encode(), digest_size=16).digest()


class PictureFeatures:
    """Features by expert and picture. Several processes may share a file.

    Args:
        cache: in whose folder the file lies, made when the first features are stored, and whose limit holds. When that
            is reached, rows of experts that this process does not ask for make room, then other entries, and then
            nothing more is stored.
        notify: called with one sentence when the file cannot be used or the cache is full.
    """

    def __init__(self, cache: FeatureCache, notify: Callable[[str], None]) -> None:
        self.cache, self.path, self.notify = cache, cache.folder / PICTURES, notify
        self.file: sqlite3.Connection | None = None
        self.writes = self.reads = cache.most != 0
        self.experts: set[bytes] = set()

    def get(self, expert: bytes, pictures: Sequence[bytes]) -> dict[bytes, ExpertFeatures]:
        """The features, on the processor, of those of some pictures that were stored for an expert."""
        self.experts.add(expert)
        find = "SELECT checksum, tensors FROM seen WHERE expert = ? AND picture = ?"
        rows = self._run(lambda file: [file.execute(find, (expert, picture)).fetchone() for picture in pictures]) or []
        found = {}
        for picture, row in zip(pictures, rows, strict=False):
            if row is not None and hashlib.blake2b(row[1], digest_size=16).digest() == row[0]:
                with contextlib.suppress(SafetensorError, TypeError):  # another version's: encoded again
                    found[picture] = ExpertFeatures(**load(row[1]))
        return found

    def put(self, expert: bytes, pictures: Sequence[bytes], seen: ExpertFeatures) -> None:
        """Store what an expert saw in some pictures (one row each): all of it or nothing."""
        if not self.writes:
            return
        rows = []
        for number, picture in enumerate(pictures):
            one = seen.rows(slice(number, number + 1)).map(lambda tensor: tensor.detach().cpu())
            tensors = save(feature_tensors(one))
            rows.append((expert, picture, hashlib.blake2b(tensors, digest_size=16).digest(), tensors))
        if self._has_room(sum(len(row[3]) for row in rows)):
            self._run(lambda file: file.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)", rows))

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def _has_room(self, wanted: int) -> bool:
        if self.cache.has_room(wanted, self._bytes()):
            return True
        marks = ", ".join("?" for _ in self.experts)
        self._run(lambda file: file.execute(f"DELETE FROM seen WHERE expert NOT IN ({marks})", tuple(self.experts)))
        if self.cache.has_room(wanted, self._bytes()):
            return True
        self.writes = False
        self.notify(self.cache.full())
        return False

    def _bytes(self) -> int:
        """Bytes in use; freed pages do not count."""
        what = ("page_count", "freelist_count", "page_size")
        found = self._run(lambda file: [file.execute(f"PRAGMA {name}").fetchone()[0] for name in what])
        return 0 if found is None else (found[0] - found[1]) * found[2]

    def _run(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """One transaction. If it fails: None, and the file is not used any more."""
        if not self.reads:
            return None
        try:
            if self.file is None:
                self.file = self._opened()
            with self.file:
                return work(self.file)
        except (sqlite3.Error, OSError, AstreaError) as error:
            self.close()
            self.reads = self.writes = False
            said = error.message if isinstance(error, AstreaError) else error
            self.notify(
                f"Features cannot be kept in {self.path} ({said}); each picture is encoded again. "
                "Remove the file, free some space, or choose another folder for the cache."
            )
            return None

    def _opened(self) -> sqlite3.Connection:
        # Opening a pipe would wait for ever.
        if exists(self.path) and not is_file(self.path):
            raise AstreaError("it is no ordinary file")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.cache.asked_for.add(PICTURES)
        file = sqlite3.connect(self.path, timeout=PATIENCE, check_same_thread=False)
        file.execute("PRAGMA journal_mode = WAL")  # others may read while one writes
        file.execute("PRAGMA synchronous = NORMAL")
        with file:
            file.execute(TABLE)
        os.utime(self.path)  # the time of last use; reading alone would not change it
        return file


def encode_once(
    kept: PictureFeatures,
    expert: bytes,
    pictures: Sequence[bytes],
    encode: Callable[[Tensor], ExpertFeatures],
) -> ExpertFeatures:
    """An expert's features of pictures (B rows); only those that are not in the cache are encoded.

    Args:
        encode: the features of the pictures at some places (long tensor), in that order.
    """
    known = kept.get(expert, list(dict.fromkeys(pictures)))
    new = {picture: place for place, picture in enumerate(pictures) if picture not in known}
    if new:
        seen = encode(torch.tensor(list(new.values()))).map(Tensor.cpu)
        kept.put(expert, list(new), seen)
        known |= {picture: seen.rows(slice(row, row + 1)) for row, picture in enumerate(new)}
    return ExpertFeatures.cat([known[picture] for picture in pictures])
