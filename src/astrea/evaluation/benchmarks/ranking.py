"""A model ranking a retrieval pool: by its embeddings, and if wanted a shortlist again by likelihood.

The table of all scores is never held whole: COCO's has 125 million cells.

Letters: N pictures, C captions, P contrast width, K length of the shortlist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from astrea.evaluation.benchmarks.answers import Tick, Viewer
from astrea.evaluation.benchmarks.items import Pool
from astrea.evaluation.benchmarks.predictions import Query
from astrea.evaluation.benchmarks.retrieval import DEPTHS, DIRECTIONS
from astrea.evaluation.metrics.retrieval import TIE_TOLERANCE, retrieval_ranks

Track = Callable[[str], Tick]
_CELLS = 1 << 22


@dataclass(frozen=True, slots=True)
class Ranked:
    """Ranks from 1 [N] and [C]; and the best ten: captions for pictures [N, <=10], pictures for captions [C, <=10]."""

    ranks_i2t: np.ndarray
    ranks_t2i: np.ndarray
    best_i2t: np.ndarray
    best_t2i: np.ndarray


def rank(viewer: Viewer, pool: Pool, *, rerank: int = 0, track: Track) -> Ranked:
    """Rank every caption for every picture and the other way round.

    Args:
        rerank: K, how many of the best by embedding the language model's likelihood puts into order; 0 = none.
        track: gives the progress callback of a named part.
    """
    images_NP = viewer.embed_pictures(pool.pictures, track("looking")).double().cpu().numpy()
    texts_CP = viewer.embed_texts(pool.captions, track("reading")).double().cpu().numpy()
    owners = np.asarray(pool.owners)
    ranks_i2t, ranks_t2i = retrieval_ranks(images_NP, texts_CP, owners)
    deep = max(DEPTHS[-1], rerank)
    best_i2t, best_t2i = best(images_NP, texts_CP, deep), best(texts_CP, images_NP, deep)
    if rerank:
        short_NK, short_CK = best_i2t[:, :rerank].copy(), best_t2i[:, :rerank].copy()
        likely = likelihoods(viewer, pool, short_NK, short_CK, track)
        prior = _priors(viewer, pool.captions)
        # Which caption for a picture: captions compete, so their own likelihood is taken off.
        for row, short in enumerate(short_NK):
            scores = np.array([likely[row, caption] - prior[caption] for caption in short])
            best_i2t[row, : len(short)] = short[np.argsort(-scores, kind="stable")]
            ranks_i2t[row] = _ranked(scores, owners[short] == row, ranks_i2t[row], len(short))
        for caption, short in enumerate(short_CK):
            scores = np.array([likely[row, caption] for row in short])
            best_t2i[caption, : len(short)] = short[np.argsort(-scores, kind="stable")]
            ranks_t2i[caption] = _ranked(scores, short == owners[caption], ranks_t2i[caption], len(short))
    return Ranked(ranks_i2t, ranks_t2i, best_i2t[:, : DEPTHS[-1]], best_t2i[:, : DEPTHS[-1]])


def _ranked(scores: np.ndarray, own: np.ndarray, before: int, length: int) -> int:
    """The rank after a shortlist was put into another order: nothing leaves it, so what was outside stays there.

    Ties count against the query; a query whose right answers are all outside keeps at least the first rank outside.
    """
    if not own.any():
        return max(int(before), length + 1)
    return 1 + int(np.count_nonzero(~own & (scores >= scores[own].max() - TIE_TOLERANCE)))


def best(queries: np.ndarray, candidates: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` nearest candidates of each query by inner product, best first: int64 [queries, <=count]."""
    count = min(count, len(candidates))
    found = np.empty((len(queries), count), dtype=np.int64)
    step = max(1, _CELLS // len(candidates))
    for start in range(0, len(queries), step):
        scores = queries[start : start + step] @ candidates.T
        top = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(scores, top, 1), axis=1, kind="stable")
        found[start : start + step] = np.take_along_axis(top, order, 1)
    return found


def likelihoods(
    viewer: Viewer, pool: Pool, short_NK: np.ndarray, short_CK: np.ndarray, track: Track
) -> dict[tuple[int, int], float]:
    """log p(caption | picture) in nats of every pair that either direction shortlisted."""
    wanted: list[dict[int, None]] = [dict.fromkeys(row.tolist()) for row in short_NK]
    for caption, rows in enumerate(short_CK):
        for row in rows.tolist():
            wanted[row][caption] = None
    found: dict[tuple[int, int], float] = {}
    tick = track("ranking again")
    for start in range(0, len(wanted), viewer.batch):
        features = viewer.encode(pool.pictures[start : start + viewer.batch])
        for row, captions in enumerate(wanted[start : start + viewer.batch], start):
            here = {name: f.rows(slice(row - start, row - start + 1)) for name, f in features.items()}
            asked = list(captions)
            for part in _parts(asked, viewer.batch):
                values = viewer.predictor.likelihood(here, [part], pool.captions)[0]
                found.update(zip(((row, caption) for caption in part), values.tolist(), strict=True))
        tick(min(start + viewer.batch, len(wanted)), len(wanted))
    return found


def _priors(viewer: Viewer, captions: Sequence[str]) -> np.ndarray:
    """log p(caption) without a picture: [C]."""
    groups = list(_parts(list(range(len(captions))), viewer.batch))
    return torch.cat(viewer.predictor.likelihood(None, groups, captions)).double().cpu().numpy()


def _parts(rows: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def queries(pool: Pool, ranked: Ranked) -> list[Query]:
    """What is kept of a ranking."""
    pictures = [
        Query(DIRECTIONS[0], id_, int(rank), tuple(best.tolist()))
        for id_, rank, best in zip(pool.ids, ranked.ranks_i2t, ranked.best_i2t, strict=True)
    ]
    captions = [
        Query(DIRECTIONS[1], number, int(rank), tuple(pool.ids[row] for row in best.tolist()))
        for number, (rank, best) in enumerate(zip(ranked.ranks_t2i, ranked.best_t2i, strict=True))
    ]
    return pictures + captions
