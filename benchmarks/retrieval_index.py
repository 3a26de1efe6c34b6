"""How fast an index of pictures is searched: exact inner products against HNSW, at two widths.

    python benchmarks/retrieval_index.py --vectors 100000 --threads 1

Random unit vectors, which are the hardest case for an approximate search: nothing clusters. Queries are random unit
vectors too ("far"), and vectors of the index with noise added ("near", cosine about 0.7 to their own). Figures:

* ``add_seconds``: from an array in memory to an index that answers; ``load_seconds``: reading and checking the index
  folder that `astrea index` would have written, and adding (exact search only: nothing else is stored);
* latency of one query and of a batch, in milliseconds, percentiles over ``--repeats`` searches;
* bytes of the index: what the library would write, and the growth of the process's resident memory while adding;
* recall: share of the exact ``--top`` results that HNSW finds, and how often it finds the nearest.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from astrea.common.provenance import commit, machine
from astrea.retrieval.manifest import Entry, ModelId
from astrea.retrieval.search import PictureIndex
from astrea.retrieval.store import MANIFEST, write_segment
from result_files import write_results

RESULTS = Path(__file__).resolve().parent / "results" / "retrieval_index.json"
LINKS, BUILD_WIDTH, SEARCH_WIDTHS = 32, 80, (64, 256)
"""Of HNSW: links per vector, candidates kept while building, and while searching."""

NEAR = 0.7
"""Cosine of a near query to the vector that it was made from."""


def unit(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    """Random unit vectors (count, width), float32."""
    vectors = rng.standard_normal((count, width), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def near_queries(rng: np.random.Generator, vectors: np.ndarray, count: int) -> np.ndarray:
    """Unit vectors whose cosine to some vector of the index is about `NEAR`."""
    chosen = vectors[rng.integers(0, len(vectors), count)]
    noise = unit(rng, count, vectors.shape[1])
    mixed = NEAR * chosen + np.sqrt(1 - NEAR**2) * noise
    return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)


def resident_bytes() -> int:
    """Memory of this process that is in use now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    return pages * resource.getpagesize()


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile, and the slowest."""
    return {
        **{f"p{p}": round(float(np.percentile(milliseconds, p)), 3) for p in (50, 95, 99)},
        "max": round(max(milliseconds), 3),
    }


def latency(index: Any, queries: np.ndarray, top: int, batch: int, repeats: int) -> dict[str, float]:
    """Milliseconds per search of ``batch`` queries; one search before, which is not counted."""
    index.search(queries[:batch], top)
    spent = []
    for repeat in range(repeats):
        start = repeat * batch % max(1, len(queries) - batch)
        began = time.perf_counter()
        index.search(queries[start : start + batch], top)
        spent.append(1000 * (time.perf_counter() - began))
    return percentiles(spent)


def filled(index: Any, vectors: np.ndarray) -> dict[str, float]:
    """Fill an index; seconds and bytes."""
    gc.collect()
    before, began = resident_bytes(), time.perf_counter()
    index.add(vectors)
    seconds = time.perf_counter() - began
    return {
        "add_seconds": round(seconds, 3),
        "resident_bytes": resident_bytes() - before,
        "serialized_bytes": len(faiss.serialize_index(index)),
    }


def speeds(index: Any, queries: np.ndarray, chosen: argparse.Namespace) -> dict[str, Any]:
    """Latency of one query and of a batch."""
    return {
        "one_query_ms": latency(index, queries, chosen.top, 1, chosen.repeats),
        f"batch_of_{chosen.batch}_ms": latency(index, queries, chosen.top, chosen.batch, max(5, chosen.repeats // 10)),
    }


def recall(found: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Share of the exact results (Q, K) that were found, and of queries whose nearest was."""
    shared = [len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), exact.tolist(), strict=True)]
    return {"top": round(float(np.mean(shared)), 4), "nearest": round(float(np.mean(found[:, 0] == exact[:, 0])), 4)}


def loaded(vectors: np.ndarray) -> dict[str, Any]:
    """An index folder of these vectors, written and opened as the command line does."""
    entries = [Entry(path=f"{i:07}.jpg", size=1, mtime_ns=1, sha256=f"{i:064x}") for i in range(len(vectors))]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        write_segment(Path(folder), MANIFEST, ModelId(fingerprint="0" * 64, name="random"), ".", entries, vectors)
        wrote = time.perf_counter()
        PictureIndex(Path(folder))
        read = time.perf_counter()
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    return {"write_seconds": round(wrote - began, 3), "load_seconds": round(read - wrote, 3), "folder_bytes": size}


def measure(width: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Everything at one width."""
    rng = np.random.default_rng(chosen.seed)
    vectors = unit(rng, chosen.vectors, width)
    queries = {"far": unit(rng, chosen.queries, width), "near": near_queries(rng, vectors, chosen.queries)}
    flat = faiss.IndexFlatIP(width)
    figures: dict[str, Any] = {
        "width": width,
        "exact": {**filled(flat, vectors), **speeds(flat, queries["near"], chosen), **loaded(vectors)},
        "hnsw": [],
    }
    exact = {kind: flat.search(asked, chosen.top)[1] for kind, asked in queries.items()}
    graph = faiss.IndexHNSWFlat(width, LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = BUILD_WIDTH
    made = filled(graph, vectors)
    for effort in SEARCH_WIDTHS:
        graph.hnsw.efSearch = effort
        found = {kind: graph.search(asked, chosen.top)[1] for kind, asked in queries.items()}
        figures["hnsw"].append(
            {
                "links": LINKS,
                "ef_construction": BUILD_WIDTH,
                "ef_search": effort,
                **made,
                **speeds(graph, queries["near"], chosen),
                "recall": {kind: recall(found[kind], exact[kind]) for kind in queries},
            }
        )
    return figures


def table(results: dict[str, Any]) -> str:
    """The figures for a person."""
    lines = []
    for part in results["widths"]:
        lines.append(f"{results['vectors']:,} vectors of width {part['width']}")
        for label, row in [
            ("exact", part["exact"]),
            *((f"HNSW, ef {row['ef_search']}", row) for row in part["hnsw"]),
        ]:
            one, kept = row["one_query_ms"], row.get("recall")
            found = f"  recall far {kept['far']['top']:.3f} near {kept['near']['top']:.3f}" if kept else ""
            lines.append(
                f"  {label:<14} one query {one['p50']:8.3f} ms (p95 {one['p95']:.3f})  "
                f"add {row['add_seconds']:8.3f} s{found}"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write the results; returns what was written."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description="Search speed of an index of pictures.")
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--queries", type=int, default=256, help="queries of each kind")
    parser.add_argument("--batch", type=int, default=64, help="queries searched together")
    parser.add_argument("--top", type=int, default=32, help="results per query")
    parser.add_argument("--repeats", type=int, default=200, help="searches that a percentile is of")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    chosen = parser.parse_args(words)
    for name in ("vectors", "queries", "batch", "top", "repeats", "threads"):
        if getattr(chosen, name) < 1:
            parser.error(f"--{name} must be at least 1")
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(chosen.threads)
    try:
        widths = [measure(width, chosen) for width in chosen.widths]
    finally:
        faiss.omp_set_num_threads(before)
    results = {
        "command": shlex.join(["python", "benchmarks/retrieval_index.py", *words]),
        "commit": commit(),
        "machine": machine(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "faiss": faiss.__version__,
        "threads": chosen.threads,
        "vectors": chosen.vectors,
        "top": chosen.top,
        "repeats": chosen.repeats,
        "widths": widths,
    }
    print(table(results))
    return write_results(chosen.out, results)


if __name__ == "__main__":
    main()
