"""Making an index of a folder of pictures, and keeping it up to date: only what is new or changed is embedded.

Letters: N pictures, P width of a vector.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from astrea.common.errors import AstreaError
from astrea.common.files import sha256_file
from astrea.common.paths import failed, file_guard, is_text
from astrea.common.progress import SILENT, Reporter
from astrea.data.fitted import FittedPicture
from astrea.model.fingerprint import model_fingerprint
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.retrieval.extra import index_library
from astrea.retrieval.manifest import Entry, ModelId, Unread
from astrea.retrieval.pictures import at_once, find_pictures, picture_vectors, read_picture
from astrea.retrieval.store import (
    MANIFEST,
    clean,
    is_begun,
    is_below,
    is_index,
    part_names,
    pictures_folder,
    read_segment,
    relative_to_index,
    sound,
    write_segment,
)

MAX_FILE_BYTES = 1 << 30
"""Of one picture; a larger file is left out before it is read."""

DOUBT_NS = 2_000_000_000
"""A file written less than this before it was read may change again without its time of writing telling: some file
systems count in steps of two seconds."""


@dataclass
class IndexSummary:
    """What an indexing did. embedded: by the model; known: taken over, ``moved`` of them under a new name or
    time; removed: no longer there; skipped: what could not be read, with the reason."""

    total: int = 0
    embedded: int = 0
    known: int = 0
    moved: int = 0
    removed: int = 0
    skipped: list[str] = field(default_factory=list)


@dataclass
class _Known:
    """Vectors that need not be computed again, by path and by content."""

    by_path: dict[str, tuple[Entry, np.ndarray]] = field(default_factory=dict)
    by_content: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, entry: Entry, vector_P: np.ndarray) -> None:
        self.by_path[entry.path] = (entry, vector_P)
        self.by_content[entry.sha256] = vector_P


def build_index(
    model: AstreaForConditionalGeneration,
    name: str,
    folder: Path,
    out: Path,
    *,
    report: Reporter = SILENT,
    rebuild: bool = False,
    batch: int = 64,
    flush: int = 1000,
) -> IndexSummary:
    """Bring the index ``out`` of the pictures in ``folder`` up to date, or make it.

    A picture is not opened again when path, size and time of writing are the recorded ones, and not embedded again when
    its sha256 is that of a known one. A picture that cannot be read is reported and left out. Whenever the process is
    killed, the index is the old one, and the next call goes on from the last ``flush``.

    Args:
        name: what to call the model in the index.
        rebuild: take nothing from an index that is damaged or another model's, and replace it.
        batch: pictures that the model embeds at once.
        flush: pictures after which what has been done is written down.

    Raises:
        AstreaError: no such folder; ``out`` holds something else, another model's index, another folder's, a damaged
            one, or cannot be written; another process is at work on it; or the extra ``index`` is not installed.
    """
    unreadable: list[tuple[Path, AstreaError]] = []
    paths = find_pictures(folder, lambda path, error: unreadable.append((path, error)))
    index_library("faiss")  # not after an hour of work
    identity = ModelId(fingerprint=model_fingerprint(model), name=name)
    where = relative_to_index(folder, out)
    with file_guard(out):
        if out.exists() and not out.is_dir():
            raise AstreaError(f"{out} is a file", "give --out another place")
        if out.exists() and any(out.iterdir()) and not is_begun(out):
            raise AstreaError(f"{out} holds other files and no index", "give --out a folder of its own")
        out.mkdir(parents=True, exist_ok=True)
        with _alone(out):
            known = _Known() if rebuild or not is_index(out) else _read_known(out, folder, identity)
            recorded = set(known.by_path)
            parts = _read_parts(out, known, identity, where, report)
            summary, found = IndexSummary(), dict[str, tuple[Entry, np.ndarray]]()
            work = _Work(model, identity, folder, out, where, report, known, summary, found, parts, flush)
            work.run(paths, at_once(model, batch))
            work.hold(unreadable)
            kept = [found[path] for path in sorted(found)]
            there = found.keys() | {one.path for one in work.unread}
            summary.total, summary.removed = len(kept), len(recorded - there)
            _commit(work, kept)
    return summary


@dataclass
class _Work:
    """One pass over the pictures; ``found`` and ``summary`` are its result."""

    model: AstreaForConditionalGeneration
    identity: ModelId
    folder: Path
    out: Path
    where: str
    report: Reporter
    known: _Known
    summary: IndexSummary
    found: dict[str, tuple[Entry, np.ndarray]]
    parts: int
    flush: int
    waiting: list[tuple[Entry, FittedPicture]] = field(default_factory=list)
    unwritten: list[tuple[Entry, np.ndarray]] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    locked: list[str] = field(default_factory=list)

    def run(self, paths: list[Path], batch: int) -> None:
        began = time.perf_counter()
        for number, path in enumerate(paths, 1):
            try:
                self.take(path)
            except AstreaError as error:
                self.skip(path, error.message)
            except OSError as error:  # gone meanwhile
                self.skip(path, failed(path, error).message)
            if len(self.waiting) == batch or number == len(paths):
                self.embed()
            rate = number / max(time.perf_counter() - began, 1e-9)
            self.report.track("indexing", number, len(paths), f"{rate:.0f} pictures/s")

    def take(self, path: Path) -> None:
        """Take a picture over, or read it and let it wait for the model."""
        relative = path.relative_to(self.folder).as_posix()
        with file_guard(path):
            status = path.stat()
        old = self.known.by_path.get(relative)
        if old is not None and (old[0].size, old[0].mtime_ns) == (status.st_size, status.st_mtime_ns):
            self.found[relative] = old
            self.summary.known += 1
            return
        if status.st_size > MAX_FILE_BYTES:
            raise AstreaError(f"image {path} has {status.st_size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
        mtime = _recorded_time(status)
        # The content is hashed before it is read as a picture: if it changes in between, the next call will notice.
        digest = sha256_file(path)
        entry = Entry(path=relative, size=status.st_size, mtime_ns=mtime, sha256=digest)
        same = self.known.by_content.get(digest)
        if same is None:
            self.waiting.append((entry, read_picture(self.model, path)))
            return
        self.found[relative] = (entry, same)
        self.summary.known += 1
        self.summary.moved += old is None

    def embed(self) -> None:
        """Let the model look at the pictures that wait, and write down what has been done from time to time."""
        if self.waiting:
            vectors_NP = picture_vectors(self.model, [picture for _, picture in self.waiting])
            for (entry, _), vector, good in zip(self.waiting, vectors_NP, sound(vectors_NP), strict=True):
                if not good:
                    path = self.folder / entry.path
                    self.skip(path, f"image {path}: the model's vector of it is not finite")
                    continue
                self.found[entry.path] = (entry, vector)
                self.known.by_content[entry.sha256] = vector
                self.unwritten.append((entry, vector))
                self.summary.embedded += 1
            self.waiting.clear()
        if len(self.unwritten) >= self.flush:
            entries, vectors = zip(*self.unwritten, strict=True)
            self.parts += 1
            name = f"part-{self.parts:06d}.json"
            write_segment(self.out, name, self.identity, self.where, list(entries), np.stack(vectors))
            self.unwritten.clear()

    def skip(self, path: Path, why: str) -> None:
        """Report a picture that is left out, and remember its state."""
        self.report.say(f"left out: {why}")
        self.summary.skipped.append(why)
        with contextlib.suppress(OSError):
            status = path.stat()
            name = path.relative_to(self.folder).as_posix()
            self.unread.append(Unread(path=name, size=status.st_size, mtime_ns=_recorded_time(status)))

    def hold(self, unreadable: list[tuple[Path, AstreaError]]) -> None:
        """Report what may not be read; its entries stay, because a locked folder is not gone."""
        for path, error in unreadable:
            self.report.say(f"left out: {error.message}")
            self.summary.skipped.append(error.message)
            if is_text(path):
                self.locked.append(path.relative_to(self.folder).as_posix())
        for name, old in self.known.by_path.items():
            if name not in self.found and is_below(name, self.locked):
                self.found[name] = old
                self.summary.known += 1


def _recorded_time(status: os.stat_result) -> int:
    """A file's time of writing as the index records it: -1, which no file has, where that is too recent to rely on."""
    return -1 if status.st_mtime_ns > time.time_ns() - DOUBT_NS else status.st_mtime_ns


def _read_known(out: Path, folder: Path, identity: ModelId) -> _Known:
    """What the index that is there knows."""
    segment = read_segment(out)
    manifest = segment.manifest
    if manifest.model.fingerprint != identity.fingerprint:
        raise AstreaError(
            f"{out} is an index of another model ({manifest.model.name!r}, this is {identity.name!r})",
            "give that model, or another --out; or replace the index with --rebuild",
        )
    if pictures_folder(out, manifest).resolve() != folder.resolve():
        raise AstreaError(
            f"{out} is an index of the pictures in {pictures_folder(out, manifest)}",
            "give another --out, or replace the index with --rebuild",
        )
    known = _Known()
    for entry, vector in zip(manifest.entries, segment.vectors_NP, strict=True):
        known.add(entry, vector)
    return known


def _read_parts(out: Path, known: _Known, identity: ModelId, where: str, report: Reporter) -> int:
    """Add what a killed indexing had done; returns the highest number of a part."""
    names = part_names(out)
    for name in names:
        try:
            segment = read_segment(out, name)
        except AstreaError as error:
            report.say(f"not used: {error.message}")
            continue
        if (segment.manifest.model.fingerprint, segment.manifest.pictures) == (identity.fingerprint, where):
            for entry, vector in zip(segment.manifest.entries, segment.vectors_NP, strict=True):
                known.add(entry, vector)
    return int(names[-1][5:11]) if names else 0


def _commit(work: _Work, kept: list[tuple[Entry, np.ndarray]]) -> None:
    """Put the new index in the place of the old one, then tidy up."""
    none = np.zeros((0, work.model.config.contrast_width), np.float32)
    vectors_NP = np.stack([vector for _, vector in kept]) if kept else none
    entries = [entry for entry, _ in kept]
    manifest = write_segment(
        work.out, MANIFEST, work.identity, work.where, entries, vectors_NP, unread=work.unread, locked=work.locked
    )
    clean(work.out, [] if manifest.vectors is None else [manifest.vectors.file])


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the index's lock; the system lets go of it when the process dies."""
    lock = FileLock(out / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise AstreaError(f"another process is indexing into {out}", "wait for it, or give another --out") from error
    try:
        yield
    finally:
        lock.release()
