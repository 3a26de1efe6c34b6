"""Asking an index: which pictures are nearest to a text or to another picture.

Exact search by inner product (faiss ``IndexFlatIP``): at 100,000 vectors it takes about a millisecond at a width of 64
and some ten milliseconds at 512 (benchmarks/retrieval_index.py), so there is no recall to give away for speed.
Vectors are read from safetensors, never from a file format of the search library.

Letters: Q queries, K results each, P width of a vector.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from astrea.common.errors import AstreaError
from astrea.common.paths import file_guard
from astrea.common.progress import SILENT, Reporter
from astrea.evaluation.generate import Predictor
from astrea.model.fingerprint import model_fingerprint
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor
from astrea.retrieval.extra import index_library
from astrea.retrieval.manifest import Entry, Manifest, Unread
from astrea.retrieval.pictures import encode_files, find_pictures, picture_vectors, read_picture, text_vector
from astrea.retrieval.rerank import SHORTLIST, Hit, check_text, per_token_likelihood
from astrea.retrieval.store import FOLDER, is_begun, is_below, is_index, pictures_folder, read_segment


class PictureIndex:
    """An index in memory, ready for questions.

    Raises:
        AstreaError: it is damaged, or the search library is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        faiss = index_library("faiss")
        segment = read_segment(folder)
        self.manifest: Manifest = segment.manifest
        self.pictures = pictures_folder(folder, self.manifest)
        self.flat: Any = faiss.IndexFlatIP(self.manifest.width)
        self.flat.add(segment.vectors_NP)

    def check_model(self, model: AstreaForConditionalGeneration) -> None:
        """Raises AstreaError if the vectors are not this model's."""
        if self.manifest.model.fingerprint != model_fingerprint(model):
            raise AstreaError(
                f"{self.folder} is an index of another model ({self.manifest.model.name!r})",
                "give retrieve the model that made it, or index the pictures again: astrea index with --rebuild",
            )

    def nearest(self, queries_QP: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosines (Q, K) and rows (Q, K) of the nearest pictures, nearest first; K is ``top`` or what there is."""
        most = min(top, self.manifest.count)
        if not most:  # which faiss refuses to look for
            return np.zeros((len(queries_QP), 0), np.float32), np.zeros((len(queries_QP), 0), np.int64)
        found: tuple[np.ndarray, np.ndarray] = self.flat.search(np.ascontiguousarray(queries_QP, np.float32), most)
        return found

    def path(self, row: int) -> Path:
        """The picture of a row."""
        return self.pictures / self.manifest.entries[row].path


def index_of(place: Path) -> Path | None:
    """The index that ``place`` is, or that a folder of pictures has within it; None where there is none.

    Raises:
        AstreaError: ``place`` is an index that was never finished.
    """
    if not is_index(place) and is_begun(place):
        raise AstreaError(f"{place} is an index that was not finished", "let the same astrea index command finish it")
    return next((folder for folder in (place, place / FOLDER) if is_index(folder)), None)


def search_by_text(
    model: AstreaForConditionalGeneration,
    processor: AstreaProcessor,
    index: PictureIndex,
    text: str,
    *,
    top: int,
    rerank: int = SHORTLIST,
    report: Reporter = SILENT,
) -> list[Hit]:
    """The ``top`` pictures for a text, best first.

    Args:
        rerank: how many pictures (``top`` at least) the language model ranks again; 0 = the vectors alone
            decide, and no picture is opened.

    Raises:
        AstreaError: a text that is empty or too long, another model's index, or none of the pictures can be read.
    """
    check_text(processor, text)
    index.check_model(model)
    predictor = Predictor(model, processor.tokenizer)
    found = _hits(index, text_vector(model, predictor, text), max(top, rerank))
    if not rerank:
        return found
    kept, features = encode_files(
        model,
        [hit.path for hit in found],
        unreadable=lambda path, error: report.say(f"left out: {error.message}"),
        looked=lambda done: report.track("looking again", done, len(found)),
    )
    if found and not kept:
        raise AstreaError(
            f"none of the pictures found in {index.folder} can be read", "bring it up to date: astrea index"
        )
    if not kept:
        return []
    with torch.inference_mode():
        scores = per_token_likelihood(predictor, features, text)
    return [Hit(found[kept[i]].path, float(scores[i])) for i in scores.argsort(descending=True)[:top].tolist()]


def search_by_picture(
    model: AstreaForConditionalGeneration, index: PictureIndex, picture: Path, *, top: int
) -> list[Hit]:
    """The ``top`` pictures most like another one, most alike first.

    Raises:
        AstreaError: the picture cannot be read, or it is another model's index.
    """
    index.check_model(model)
    vector = picture_vectors(model, [read_picture(model, picture)])
    return _hits(index, vector, top)


def changed_since(index: PictureIndex) -> int:
    """How many pictures are new, gone, or of another size or time of writing than the index says. What could not be
    read then and is as it was, and what may not be looked at, then or now, has not changed."""
    manifest = index.manifest
    known: list[Entry | Unread] = [*manifest.unread, *manifest.entries]
    recorded = {one.path: (one.size, one.mtime_ns) for one in known}
    locked = list(manifest.locked)

    def unreadable(path: Path, error: AstreaError) -> None:
        locked.append(path.relative_to(index.pictures).as_posix())

    found = {}
    for path in find_pictures(index.pictures, unreadable):
        with file_guard(path):
            status = path.stat()
        found[path.relative_to(index.pictures).as_posix()] = (status.st_size, status.st_mtime_ns)
    gone = sum(not is_below(path, locked) for path in recorded.keys() - found.keys())
    return gone + sum(not _as_recorded(now, recorded.get(path)) for path, now in found.items())


def _as_recorded(now: tuple[int, int], then: tuple[int, int] | None) -> bool:
    return then is not None and now[0] == then[0] and then[1] in (now[1], -1)


def _hits(index: PictureIndex, vector_1P: np.ndarray, top: int) -> list[Hit]:
    cosines, rows = index.nearest(vector_1P, top)
    return [Hit(index.path(int(row)), float(cosine)) for row, cosine in zip(rows[0], cosines[0], strict=True)]
