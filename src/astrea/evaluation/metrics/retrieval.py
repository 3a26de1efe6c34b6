"""Image-to-text and text-to-image retrieval: ranks and recall at k, as COCO and Flickr30k figures are counted.

Ranks start at 1. A wrong item with the same score as the right one is put before it: a model that scores everything
alike gets the worst ranks, and not the best.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

TIE_TOLERANCE = 1e-9
"""Scores of :func:`retrieval_ranks` this close are ties. Matrix products round alike rows differently by about 1e-16
depending on where they lie; without this, equal embeddings would be ranked by such accidents."""


def ranks_i2t(scores: ArrayLike, caption_image_ids: ArrayLike) -> np.ndarray:
    """For each image, the best rank among its own captions: 1 + the wrong captions that score as high or higher.

    Args:
        scores: [images, captions], higher means closer.
        caption_image_ids: [captions], the row in ``scores`` of each caption's image. Every image needs a caption.

    Returns:
        int64 [images], ranks from 1.

    Raises:
        ValueError: shapes that do not fit, ids out of range, an image without caption, or scores that are not numbers
            (NaN).
    """
    table, owners = _checked(scores, caption_image_ids)
    ranks = np.empty(len(table), dtype=np.int64)
    for rows in _chunks(len(table), table.shape[1]):
        ranks[rows] = _i2t_rows(table[rows], rows, owners, 0.0)
    return ranks


def ranks_t2i(scores: ArrayLike, caption_image_ids: ArrayLike) -> np.ndarray:
    """For each caption, the rank of its one image: 1 + the other images that score as high or higher.

    Args, Raises: as in :func:`ranks_i2t` (``scores`` is [images, captions] here, too).

    Returns:
        int64 [captions], ranks from 1.
    """
    table, owners = _checked(scores, caption_image_ids)
    ranks = np.empty(len(owners), dtype=np.int64)
    for columns in _chunks(len(owners), len(table)):
        ranks[columns] = _t2i_columns(table[:, columns], columns, owners, 0.0)
    return ranks


def retrieval_ranks(
    image_embeddings: ArrayLike, text_embeddings: ArrayLike, caption_image_ids: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Both ranks from embeddings, by inner product, without ever holding the whole [images, captions] table.

    Normalise the embeddings first if the cosine is meant. Products are taken in float64 and scores within
    :data:`TIE_TOLERANCE` are ties.

    Args:
        image_embeddings: [images, width].
        text_embeddings: [captions, width].
        caption_image_ids: [captions], the row of each caption's image.

    Returns:
        (image-to-text ranks [images], text-to-image ranks [captions]).

    Raises:
        ValueError: as in :func:`ranks_i2t`.
    """
    images = np.asarray(image_embeddings, dtype=np.float64)
    texts = np.asarray(text_embeddings, dtype=np.float64)
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:
        raise ValueError(f"embeddings must be [n, width] of one width, got {images.shape} and {texts.shape}")
    owners = _checked_owners(caption_image_ids, len(images), len(texts))
    for name, embeddings in (("image", images), ("text", texts)):
        bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
        if bad.size:
            raise ValueError(f"{name} embedding {bad[0]} is not finite ({bad.size} such in all)")
    i2t = np.empty(len(images), dtype=np.int64)
    for rows in _chunks(len(images), len(texts)):
        i2t[rows] = _i2t_rows(images[rows] @ texts.T, rows, owners, TIE_TOLERANCE)
    t2i = np.empty(len(texts), dtype=np.int64)
    for columns in _chunks(len(texts), len(images)):
        t2i[columns] = _t2i_columns(images @ texts[columns].T, columns, owners, TIE_TOLERANCE)
    return i2t, t2i


def recall_at(ranks: ArrayLike, k: int) -> float:
    """Per cent of the queries whose rank is k or better.

    Raises:
        ValueError: no ranks, a rank below 1, or k below 1.
    """
    values = np.asarray(ranks)
    if values.size == 0 or values.min() < 1:
        raise ValueError("ranks must not be empty, and each must be at least 1")
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    return float(100.0 * np.mean(values <= k))


def _i2t_rows(block: np.ndarray, rows: slice, owners: np.ndarray, tolerance: float) -> np.ndarray:
    """Ranks of the images ``rows`` from their scores [rows, captions]."""
    own = owners[None, :] == np.arange(rows.start, rows.stop)[:, None]
    best = np.where(own, block, -np.inf).max(axis=1, keepdims=True)
    found: np.ndarray = 1 + np.count_nonzero(~own & (block >= best - tolerance), axis=1)
    return found


def _t2i_columns(block: np.ndarray, columns: slice, owners: np.ndarray, tolerance: float) -> np.ndarray:
    """Ranks for the captions ``columns`` from their scores [images, columns]."""
    right = block[owners[columns], np.arange(block.shape[1])]
    # The right image is counted by >=, too, which makes up for ranks starting at 1.
    found: np.ndarray = np.count_nonzero(block >= right - tolerance, axis=0)
    return found


def _chunks(queries: int, candidates: int, cells: int = 1 << 23) -> Iterator[slice]:
    """Slices of queries whose tables hold about ``cells`` scores (64 MiB of float64)."""
    step = max(1, cells // max(1, candidates))
    for start in range(0, queries, step):
        yield slice(start, min(start + step, queries))


def _checked(scores: ArrayLike, caption_image_ids: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    table = np.asarray(scores)
    if table.ndim != 2:
        raise ValueError(f"scores must be [images, captions], got shape {table.shape}")
    owners = _checked_owners(caption_image_ids, *table.shape)
    for rows in _chunks(len(table), table.shape[1]):
        bad = np.argwhere(np.isnan(table[rows]))
        if len(bad):
            raise ValueError(f"the score of image {rows.start + bad[0, 0]} and caption {bad[0, 1]} is NaN")
    return table, owners


def _checked_owners(caption_image_ids: ArrayLike, images: int, captions: int) -> np.ndarray:
    owners = np.asarray(caption_image_ids)
    if owners.shape != (captions,) or captions == 0:
        raise ValueError(f"caption_image_ids must have one id for each of {captions} captions, got {owners.shape}")
    if not np.issubdtype(owners.dtype, np.integer) or owners.min() < 0 or owners.max() >= images:
        raise ValueError(f"caption_image_ids must be whole numbers from 0 to {images - 1}")
    missing = np.setdiff1d(np.arange(images), owners)
    if missing.size:
        raise ValueError(f"image {missing[0]} has no caption ({missing.size} such in all), so it has no rank")
    return owners
