"""Running the public tasks: what is there is evaluated, what is missing is listed, and one bad file stops one task."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from astrea.common.errors import AstreaError
from astrea.common.files import finite_or_null, write_json_atomic
from astrea.common.paths import exists, file_guard, is_file
from astrea.common.progress import Reporter
from astrea.common.terminal import counted
from astrea.evaluation.benchmarks.answers import Tick, Viewer
from astrea.evaluation.benchmarks.files import read_object
from astrea.evaluation.benchmarks.items import Item, Score
from astrea.evaluation.benchmarks.journal import Journal
from astrea.evaluation.benchmarks.missing import Found, check_pictures, locate
from astrea.evaluation.benchmarks.predictions import (
    Header,
    read_answers,
    read_header,
    read_ranks,
    write_answers,
    write_queries,
)
from astrea.evaluation.benchmarks.ranking import queries, rank
from astrea.evaluation.benchmarks.retrieval import score_retrieval
from astrea.evaluation.benchmarks.submission import write_submission
from astrea.evaluation.benchmarks.suite import AnswerTask, RetrievalTask, Wanted
from astrea.evaluation.metrics.vqa import Mode

SCHEMA = 1
RESULTS = "results.json"


@dataclass(frozen=True, slots=True)
class Settings:
    """How the tasks are run.

    Attributes:
        data: the folder with the official files. out: where results, predictions and submissions go.
        model: what the model is called in what is written.
        mode: see `items.MODES`. limit: how many items of each file, None = all. rerank: see `ranking.rank`.
        predictions: a folder of an earlier run, to score what it kept in place of asking a model.
    """

    data: Path
    out: Path
    model: str
    mode: Mode = "official"
    limit: int | None = None
    rerank: int = 0
    predictions: Path | None = None


@dataclass(slots=True)
class Outcome:
    """Results per task as in `results.json`, the files that tasks lack, the errors that stopped tasks, and the results
    that earlier runs with the same settings left in the same folder."""

    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, tuple[Wanted, ...]] = field(default_factory=dict)
    failed: dict[str, AstreaError] = field(default_factory=dict)
    earlier: dict[str, dict[str, Any]] = field(default_factory=dict)


def run_suite(
    tasks: Sequence[AnswerTask | RetrievalTask], settings: Settings, viewer: Viewer | None, report: Reporter
) -> Outcome:
    """Run tasks one after another; after each, `results.json` holds all there is so far.

    Args:
        viewer: the model; None where ``settings.predictions`` are scored.
    """
    outcome = Outcome(earlier=earlier_results(settings))
    for task in tasks:
        found, missing = _located(task, settings)
        if found is None:
            outcome.missing[task.name] = missing
            continue
        try:
            outcome.tasks[task.name] = run_task(task, found, settings, viewer, report)
        except AstreaError as error:
            outcome.failed[task.name] = error
            report.say(f"{task.name} stopped: {error.message}")
            continue
        write_results(settings, outcome)
    return outcome


def _located(task: AnswerTask | RetrievalTask, settings: Settings) -> tuple[Found | None, tuple[Wanted, ...]]:
    """As `locate`; pictures are not needed to score what was kept."""
    found, missing = locate(task, settings.data)
    if found is None and settings.predictions is not None and missing == (task.pictures,):
        files = tuple(next(settings.data / p for p in w.paths if is_file(settings.data / p)) for w in task.files)
        return Found(files, settings.data / task.pictures.paths[0]), ()
    return found, missing


def run_task(
    task: AnswerTask | RetrievalTask, found: Found, settings: Settings, viewer: Viewer | None, report: Reporter
) -> dict[str, Any]:
    """One task: its entry in `results.json`; predictions and submission are written beside.

    Raises:
        AstreaError: a malformed file, a missing or unreadable picture, predictions that do not fit.
    """
    started = time.perf_counter()
    header = Header(task.name, settings.model, settings.limit, 0, settings.rerank)
    if settings.predictions is not None:
        header = read_header(settings.predictions, task.name)
        if settings.limit not in (None, header.limit):
            raise AstreaError(
                f"the kept predictions for {task.name} are of {header.limit or 'all'} items, not {settings.limit}",
                "leave out --limit when scoring kept predictions",
            )
    if isinstance(task, AnswerTask):
        score, count, prompt = _answered(task, found, settings, viewer, report, header)
    else:
        (score, count), prompt = _ranked(task, found, settings, viewer, report, header), ""
    result = "no public answers" if score.score is None else f"{task.metric} {score.score:.1f}"
    asked = f", asked as {prompt!r}" if prompt else ""
    report.say(f"{task.name}: {result} on {counted(count, 'item')}{asked}")
    return {
        "title": task.title,
        "metric": task.metric,
        "score": score.score,
        "n": count,
        "official_n": task.count,
        "complete": count == task.count,
        "details": score.details,
        "prompt": prompt,
        "model": header.model,
        "seconds": time.perf_counter() - started,
    }


def _answered(
    task: AnswerTask, found: Found, settings: Settings, viewer: Viewer | None, report: Reporter, header: Header
) -> tuple[Score, int, str]:
    items = task.read(found.files, found.pictures, header.limit)
    if not items:
        raise AstreaError(f"{found.files[0]}: holds no item of {task.title}", "check that it is the file of this split")
    if settings.predictions is not None:
        predictions = read_answers(settings.predictions, task.name, items)
    else:
        check_pictures(item.picture for item in items)
        model = _needed(viewer)
        header = replace(header, n=len(items), prompt=model.asked(items[0].prompt))
        predictions = _asked(model, items, task, settings, report, header)
    write_submission(settings.out, task, items, predictions, settings.mode)
    return task.score(items, predictions, settings.mode), len(items), header.prompt


def _asked(
    viewer: Viewer, items: Sequence[Item], task: AnswerTask, settings: Settings, report: Reporter, header: Header
) -> list[str]:
    """Ask the model whatever an earlier run of the same command has not, and keep all answers."""
    journal = Journal(settings.out, header, fingerprint=viewer.fingerprint, longest=task.longest)
    known = journal.read(items)
    left = [item for item in items if item.id not in known]
    if known:
        there = counted(len(known), "answer")
        report.say(f"{task.name}: {there} of an earlier run kept, {counted(len(left), 'item')} left to ask")
    journal.begin(known, items)

    def keep(asked: Sequence[Item], answers: Sequence[str]) -> None:
        journal.add(asked, answers)
        known.update((item.id, answer) for item, answer in zip(asked, answers, strict=True))

    viewer.answer(left, task.longest, lambda done, total: report.track(task.name, done, total), keep)
    predictions = [known[item.id] for item in items]
    write_answers(settings.out, header, items, predictions)
    journal.end()
    return predictions


def _ranked(
    task: RetrievalTask, found: Found, settings: Settings, viewer: Viewer | None, report: Reporter, header: Header
) -> tuple[Score, int]:
    pool = task.read(found.files, found.pictures, header.limit)
    if not pool.ids:
        raise AstreaError(f"{found.files[0]}: holds no item of {task.title}", "check that it is the file of this split")
    if settings.predictions is not None:
        ranks_i2t, ranks_t2i = read_ranks(settings.predictions, task.name, pool)
        score = score_retrieval(ranks_i2t, ranks_t2i)
    else:
        check_pictures(pool.pictures)

        def track(part: str) -> Tick:
            return lambda done, total: report.track(f"{task.name} {part}", done, total)

        ranked = rank(_needed(viewer), pool, rerank=settings.rerank, track=track)
        write_queries(settings.out, replace(header, n=len(pool.ids)), queries(pool, ranked))
        score = score_retrieval(ranked.ranks_i2t, ranked.ranks_t2i)
    return Score(score.score, score.details | {"rerank": header.rerank}), len(pool.ids)


def write_results(settings: Settings, outcome: Outcome) -> Path:
    """`results.json` of what is done so far."""
    path = settings.out / RESULTS
    with file_guard(path):
        settings.out.mkdir(parents=True, exist_ok=True)
        write_json_atomic(path, results_of(settings, outcome))
    return path


def earlier_results(settings: Settings) -> dict[str, dict[str, Any]]:
    """The tasks of a `results.json` that is there already, if it was made with the same settings.

    Raises:
        AstreaError: there is such a file, and it is not JSON.
    """
    path = settings.out / RESULTS
    if not exists(path):
        return {}
    there = read_object(path).fields
    same = all(there.get(name) == value for name, value in _head(settings).items())
    return there["tasks"] if same and isinstance(there.get("tasks"), dict) else {}


def _head(settings: Settings) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "suite": "public",
        "model": settings.model,
        "mode": settings.mode,
        "limit": settings.limit,
    }


def results_of(settings: Settings, outcome: Outcome) -> dict[str, Any]:
    """What `results.json` holds."""
    found: dict[str, Any] = finite_or_null(
        {
            **_head(settings),
            "tasks": outcome.earlier | outcome.tasks,
            "missing": {name: [p for w in wanted for p in w.paths[:1]] for name, wanted in outcome.missing.items()},
            "failed": {name: error.message for name, error in outcome.failed.items()},
        }
    )
    return found


def _needed(viewer: Viewer | None) -> Viewer:
    if viewer is None:
        raise AstreaError("there is neither a model nor kept predictions", "give one of the two")
    return viewer
