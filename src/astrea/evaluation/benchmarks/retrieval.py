"""COCO 5K and Flickr30k 1K retrieval: reading the pool, and the figures from ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from astrea.evaluation.benchmarks.captions import karpathy_id, karpathy_picture, karpathy_test
from astrea.evaluation.benchmarks.files import Entry, listed, read_json, unique
from astrea.evaluation.benchmarks.items import Pool, Score
from astrea.evaluation.metrics.retrieval import recall_at

DIRECTIONS = ("image_to_text", "text_to_image")
DEPTHS = (1, 5, 10)


def read_pool(files: Sequence[Path], pictures: Path, limit: int | None) -> Pool:
    """A retrieval list ``[{image, caption: [...]}]`` or Karpathy's ``dataset_*.json`` (test split), by content.

    A retrieval list names pictures from the folder that ``pictures`` lies in: ``val2014/COCO_val2014_...jpg``.
    """
    entries = unique(_entries(files[0]))
    pool = Pool([], [], [], [])
    for row, (id_, entry) in enumerate(list(entries.items())[:limit]):
        in_list = entry.has("caption")
        captions = entry.texts("caption") if in_list else entry.texts("sentences", "raw")
        pool.ids.append(id_)
        pool.pictures.append(
            entry.picture(pictures.parent, entry.text("image")) if in_list else karpathy_picture(entry, pictures)
        )
        pool.captions.extend(captions)
        pool.owners.extend([row] * len(captions))
    return pool


def _entries(path: Path) -> Iterator[tuple[int | str, Entry]]:
    value = read_json(path)
    if not isinstance(value, list):
        yield from ((karpathy_id(entry), entry) for entry in karpathy_test(Entry(value, path, "")))
        return
    for entry in listed(value, path):
        entry.items("caption")
        yield entry.text("image"), entry


def score_retrieval(ranks_i2t: Sequence[int] | np.ndarray, ranks_t2i: Sequence[int] | np.ndarray) -> Score:
    """The mean of the two recalls at 1; recall at 1, 5 and 10 of both directions beside it, and their sum."""
    recalls = {
        direction: {f"recall@{k}": recall_at(ranks, k) for k in DEPTHS} | {"n": len(ranks)}
        for direction, ranks in zip(DIRECTIONS, (ranks_i2t, ranks_t2i), strict=True)
    }
    total = sum(recalls[direction][f"recall@{k}"] for direction in DIRECTIONS for k in DEPTHS)
    first = sum(recalls[direction]["recall@1"] for direction in DIRECTIONS) / 2
    return Score(first, recalls | {"rsum": total})
