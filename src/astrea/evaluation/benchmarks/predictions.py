"""Predictions kept item by item, so that scores can be made again without the model.

One JSONL file for each task: a first line that says what the run was, then a line for each item. Retrieval keeps the
rank of every query and the ids of the best ten.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from astrea.common.errors import AstreaError
from astrea.common.files import write_atomic
from astrea.common.paths import file_guard
from astrea.evaluation.benchmarks.files import Entry, read_lines
from astrea.evaluation.benchmarks.items import Item, Pool
from astrea.evaluation.benchmarks.retrieval import DIRECTIONS

SCHEMA = 1
_AGAIN = "evaluate the model again, or give the folder of a run on the same files"


@dataclass(frozen=True, slots=True)
class Header:
    """What a predictions file is of; ``prompt``: what the model read of the first item, to the letter."""

    task: str
    model: str
    limit: int | None
    n: int
    rerank: int = 0
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class Query:
    """One retrieval query: its rank, and the ids of the best ten (captions by their place in the pool)."""

    direction: str
    id: int | str
    rank: int
    best: tuple[int | str, ...] = ()


def predictions_path(folder: Path, task: str) -> Path:
    """Where a task's predictions lie."""
    return folder / "predictions" / f"{task}.jsonl"


def write_answers(folder: Path, header: Header, items: Sequence[Item], predictions: Sequence[str]) -> Path:
    """Keep the answers of a task."""
    rows = ({"id": item.id, "prediction": p} for item, p in zip(items, predictions, strict=True))
    return _write(folder, header, rows)


def write_queries(folder: Path, header: Header, queries: Iterable[Query]) -> Path:
    """Keep the ranks of a retrieval task."""
    return _write(
        folder, header, ({"direction": q.direction, "id": q.id, "rank": q.rank, "best": list(q.best)} for q in queries)
    )


def read_header(folder: Path, task: str) -> Header:
    """What a predictions file is of.

    Raises:
        AstreaError: there is no such file, or it is not of this task.
    """
    path = predictions_path(folder, task)
    first = next(read_lines(path), None)
    if first is None or first.fields.get("schema") != SCHEMA or first.fields.get("task") != task:
        raise AstreaError(f"{path}: line 1: does not say that these are predictions for {task}", _AGAIN)
    limit = first.whole("limit") if first.has("limit") else None
    prompt = first.text("prompt") if first.has("prompt") else ""
    return Header(task, first.text("model"), limit, first.whole("n"), first.whole("rerank"), prompt)


def read_answers(folder: Path, task: str, items: Sequence[Item]) -> list[str]:
    """The kept answers, in the order of the items.

    Raises:
        AstreaError: an item without an answer, an answer to something that is no item, or one that comes twice.
    """
    path = predictions_path(folder, task)
    found: dict[int | str, str] = {}
    known = {item.id for item in items}
    for entry in _rows(path):
        id_ = entry.id("id")
        if id_ not in known or id_ in found:
            raise entry.error(f"{id_!r} is {'there twice' if id_ in found else 'no item of the task'}", _AGAIN)
        found[id_] = entry.text("prediction")
    lacking = next((item.id for item in items if item.id not in found), None)
    if lacking is not None:
        raise AstreaError(f"{path}: there is no prediction for {lacking!r}", _AGAIN)
    return [found[item.id] for item in items]


def read_ranks(folder: Path, task: str, pool: Pool) -> tuple[list[int], list[int]]:
    """The kept ranks: (image-to-text [pictures], text-to-image [captions]).

    Raises:
        AstreaError: queries that are not the pool's, or a rank that cannot be.
    """
    path = predictions_path(folder, task)
    ranks: dict[str, list[int]] = {direction: [] for direction in DIRECTIONS}
    ids: dict[str, list[int | str]] = {direction: [] for direction in DIRECTIONS}
    sizes = dict(zip(DIRECTIONS, (len(pool.captions), len(pool.ids)), strict=True))
    for entry in _rows(path):
        direction, rank = entry.text("direction"), entry.whole("rank")
        if direction not in ranks or not 1 <= rank <= sizes[direction]:
            raise entry.error(f"direction {direction!r} with rank {rank} cannot be", _AGAIN)
        ranks[direction].append(rank)
        ids[direction].append(entry.id("id"))
    if ids[DIRECTIONS[0]] != pool.ids or ids[DIRECTIONS[1]] != list(range(len(pool.captions))):
        raise AstreaError(f"{path}: the queries are not those of the pool, in its order", _AGAIN)
    return ranks[DIRECTIONS[0]], ranks[DIRECTIONS[1]]


def _rows(path: Path) -> Iterable[Entry]:
    rows = iter(read_lines(path))
    next(rows, None)
    return rows


def _write(folder: Path, header: Header, rows: Iterable[dict[str, Any]]) -> Path:
    path = predictions_path(folder, header.task)
    first = {"schema": SCHEMA, **asdict(header)}
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (first, *rows))
    with file_guard(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode("utf-8", "backslashreplace"))
    return path
