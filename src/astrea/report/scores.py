"""Sections on how well the run did: headline, the twelve tasks, conditions."""

from __future__ import annotations

from astrea.report.interval import wilson
from astrea.report.load import RunFiles
from astrea.report.markup import (
    MISSING,
    absent,
    bar,
    cell,
    escape,
    number,
    percent,
    plain,
    row,
    section,
    table,
    words,
)
from astrea.report.results import FAMILIES, TASKS, Results, TaskScore
from astrea.report.spreadsheet import csv_link

# Metrics that are the mean of one number between 0 and 1 per question; only these have the margin worked out below.
_MEANS = ("accuracy", "match", "recall", "scene_f1")


def headline(files: RunFiles) -> str:
    """The page's header: what was run, and the figures that matter most."""
    results = files.results
    facts = [
        f"strategy <strong>{escape(results.strategy)}</strong>" if results.strategy else "",
        f"recipe <strong>{escape(results.recipe)}</strong>" if results.recipe else "",
        f"seed <strong>{escape(results.seed)}</strong>" if results.seed is not None else "",
    ]
    gain = None
    if results.average is not None and results.blind_average is not None:
        gain = results.average - results.blind_average
    total = sum(value for value in results.seconds.values() if value is not None) if results.seconds else None
    stages = " · ".join(f"{words(stage)} {duration(value)}" for stage, value in results.seconds.items())
    params = results.params
    trained, every = params.get("trainable"), params.get("total")
    tiles = [
        _tile("Average of the tasks", _or_missing(results.average), "0 to 100, higher is better"),
        _tile("Without the picture", _or_missing(results.blind_average), "the same model, blind"),
        _tile("What looking adds", MISSING if gain is None else plain(gain, sign=True), "points above blind"),
        _tile("Time", duration(total) if total is not None else MISSING, stages),
        _tile(
            "Trained parameters",
            count(trained) if trained is not None else MISSING,
            f"of {count(every)} in all" if every is not None else "",
        ),
    ]
    return (
        f'<header><h1>{escape(files.name)}</h1><p class="sub">{" · ".join(filter(None, facts)) or "Astrea run"}</p>'
        f'<dl class="tiles">{"".join(tiles)}</dl></header>'
    )


def _tile(name: str, value: str, note: str) -> str:
    return f'<div class="tile"><dt>{name}</dt><dd>{value}</dd><dd>{note}</dd></div>'


def _or_missing(value: float | None) -> str:
    return MISSING if value is None else plain(value)


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 8.3 s, 4 min 05 s, 2 h 10 min."""
    if seconds is None:
        return number(None)
    if seconds < 59.95:
        return f"{plain(seconds, digits=0 if seconds >= 20 else 1)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def count(value: float) -> str:
    """A number of parameters: 912, 84.2 k, 1.93 M, 7.1 G."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return plain(value, digits=0)


def interval(task: TaskScore) -> tuple[float, float] | None:
    """The 95 % interval of a score (0..100) that is a mean of ``n`` numbers in 0..1, as wide as if each were 0 or 1;
    None for other scores."""
    if task.score is None or not task.n or task.n < 1 or not 0 <= task.score <= 100:
        return None
    if not any(name in (task.metric or "").lower() for name in _MEANS):
        return None
    low, high = wilson(task.score / 100, round(task.n))
    return 100 * low, 100 * high


def tasks_section(results: Results) -> str:
    """The table of the twelve tasks."""
    heads = ["Task", "Score", "95 % interval", "", "Blind", "Above blind", "Samples", "Metric", "Other metrics"]
    others = tuple(name for name in results.tasks if name not in TASKS)
    families = {**FAMILIES, "Other tasks": others} if others else FAMILIES
    if results.own_data:
        families = {"Kinds of answers": others}
    title = "Kinds of answers" if results.own_data else "Twelve tasks"
    bodies = [
        f'<tr class="family"><th scope="rowgroup" colspan="{len(heads)}">{family}</th></tr>'
        + "".join(_task_row(name, results.tasks.get(name, TaskScore())) for name in names)
        for family, names in families.items()
    ]
    average = TaskScore(score=results.average, blind=results.blind_average)
    bodies.append(_task_row("average", average, classes="total"))
    note = (
        "Bars run from 0 to 100. The upright mark is the blind score, of the same model answering without the picture: "
        "the pale part could be guessed, the full part comes from looking. The 95 % interval (Wilson) is what so many "
        "independent questions leave open; it is given where the metric is a mean over questions."
    )
    shown = table(f"Scores of the {title.lower()}", heads, bodies, classes="scores")
    return section("tasks", title, shown + _tasks_csv(results), note)


def _tasks_csv(results: Results) -> str:
    heads = ("task", "metric", "score", "low", "high", "blind", "n")
    rows = []
    for name, task in results.tasks.items():
        low, high = interval(task) or (None, None)
        rows.append((name, task.metric, task.score, low, high, task.blind, task.n))
    rows.append(("average", None, results.average, None, None, results.blind_average, None))
    return csv_link("tasks.csv", heads, rows)


def _task_row(name: str, task: TaskScore, *, classes: str = "") -> str:
    sure = interval(task)
    mark = task.blind / 100 if task.blind is not None else None
    drawn = bar((task.score or 0) / 100, mark=mark, guess=mark) if task.score is not None or mark is not None else ""
    secondary = " · ".join(f"{words(metric)} {number(value)}" for metric, value in task.secondary.items())
    cells = [
        cell(number(task.score)),
        cell(f"{plain(sure[0])} to {plain(sure[1])}" if sure else "", classes="num half"),
        cell(drawn, classes="wide"),
        cell(number(task.blind)),
        cell(number(task.gain, sign=True)),
        cell(number(task.n, digits=0) if not classes else ""),
        cell(words(task.metric) if task.metric else "", classes="more"),
        cell(secondary, classes="more"),
    ]
    return row(words(name), cells, classes=classes)


def conditions_section(results: Results) -> str:
    """Scores per condition of the picture, with the experts' shares under it."""
    names = list(dict.fromkeys([*results.conditions, *results.shares_by_condition]))
    if not names:
        return section("conditions", "Conditions", absent("Scores and shares per condition were not measured."))
    experts = [e for e in results.expert_names() if any(e in shares for shares in results.shares_by_condition.values())]
    rows = []
    for name in names:
        score, shares = results.conditions.get(name), results.shares_by_condition.get(name, {})
        cells = [cell(number(score)), cell(bar(score / 100) if score is not None else "", classes="wide")]
        cells += [cell(percent(shares.get(e)), tint=shares.get(e) or 0.0) for e in experts]
        rows.append(row(words(name), cells))
    heads = ["Condition", "Score", "", *map(words, experts)]
    note = "The score where the pictures are of one condition, and how the allocator then shares its trust."
    body = table("Score and share of each expert per condition", heads, ["".join(rows)], classes="figures")
    return section("conditions", "Conditions", body, note)
