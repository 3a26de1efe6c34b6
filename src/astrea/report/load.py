"""Reading a run folder for the report: results, loss curves, test pictures, recipe."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from astrea.common.errors import AstreaError
from astrea.common.paths import exists, is_folder, read_bytes
from astrea.data.images import load_image
from astrea.report.results import Results, parse_results

MAX_SAMPLES = 48
MOST_BYTES = 1 << 30
"""Of a file of a run, such as the log of a long one."""
COMPONENTS = ("lm", "word", "itc", "agree", "contribution", "validation")
"""Parts of the loss that the curves show, where they were logged."""

_HIGHEST = 1e30  # a loss above it is not drawn (nor is NaN): sums of such numbers leave what a float can hold
_LAST_STEP = 2**53
_RECIPE_LIMIT = 200_000  # characters
_WIDEST = 2400  # pixels: a photograph straight from a camera would make the page too heavy to open


@dataclass(frozen=True, slots=True)
class Curve:
    """The losses of one stage: name of the loss -> (step, value) in order of steps."""

    stage: str
    series: dict[str, list[tuple[int, float]]]


@dataclass(frozen=True, slots=True)
class Sample:
    """One test picture, as a ``data:`` address, with the question asked about it.

    is_panel: the picture is one that `astrea.experts.drawing.draw_readings` made, not the bare one.
    """

    address: str
    is_panel: bool
    task: str = ""
    question: str = ""
    answer: str = ""
    truth: str = ""
    right: bool | None = None
    condition: str = ""
    shares: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunFiles:
    """All that the report shows. None: the file is not there."""

    name: str
    results: Results
    curves: list[Curve] | None
    samples: list[Sample] | None
    samples_left_out: int
    recipe: str | None


def read_run(run: Path) -> RunFiles:
    """Read a run folder. Only ``results.json`` must be there.

    Raises:
        AstreaError: the folder or ``results.json`` is missing, or a file is unreadable, damaged, of the wrong form, or
            names a picture outside the folder.
    """
    if not is_folder(run):
        raise AstreaError(f"{run} is not a folder", "Give the folder of a run, such as runs/tiny.")
    path = run / "results.json"
    text = _text(path)
    if text is None:
        raise AstreaError(f"{path} does not exist", f"Evaluate the run first: astrea evaluate {run}")
    results = parse_results(_decoded(text, path, "Evaluate the run again: astrea evaluate RUN"), str(path))
    samples, left_out = _samples(run)
    recipe = _text(run / "recipe.yaml")
    if recipe is not None and len(recipe) > _RECIPE_LIMIT:
        recipe = recipe[:_RECIPE_LIMIT] + "\n... (cut off here; see recipe.yaml)"
    return RunFiles(run.resolve().name, results, _curves(run / "train.jsonl"), samples, left_out, recipe)


def _text(path: Path) -> str | None:
    """The file's text, None where there is no file. Bytes that are not UTF-8 become replacement characters."""
    if not exists(path):
        return None
    return read_bytes(path, MOST_BYTES).decode("utf-8-sig", errors="replace")


def _decoded(text: str, path: Path, hint: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AstreaError(f"{path} is not valid JSON: {error}", hint) from error


# --- train.jsonl ------------------------------------------------------------------------------------------------------


def _curves(path: Path) -> list[Curve] | None:
    """One curve per stage, in the order in which the stages began; rows without a stage or a loss are no part of it."""
    text = _text(path)
    if text is None:
        return None
    lines = text.split("\n")
    stages: dict[str, dict[str, dict[int, float]]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        # A run that was killed in mid-write leaves half a line without a newline: that much is no damage.
        row = _row(line, path, number, torn=number == len(lines))
        if row is None or not isinstance(row.get("stage"), str):
            continue
        for name in ("loss", *COMPONENTS):
            value = row.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _HIGHEST:
                stages.setdefault(row["stage"], {}).setdefault(name, {})[row["step"]] = float(value)
    return [
        Curve(stage, {name: sorted(points.items()) for name, points in series.items()})
        for stage, series in stages.items()
    ]


def _row(line: str, path: Path, number: int, *, torn: bool) -> dict[str, Any] | None:
    hint = "Remove that line, or the whole file to make the report without loss curves."
    try:
        row: dict[str, Any] | None = json.loads(line)
    except (ValueError, RecursionError) as error:
        if torn:
            return None
        raise AstreaError(f"{path}, line {number} is not valid JSON: {error}", hint) from error
    step = row.get("step") if isinstance(row, dict) else None
    if not isinstance(step, int) or isinstance(step, bool) or abs(step) > _LAST_STEP:
        raise AstreaError(f'{path}, line {number} is not an object with a whole number "step"', hint)
    return row


# --- samples.json -----------------------------------------------------------------------------------------------------

_SAMPLES_HINT = "Evaluate the run again, or remove samples.json to make the report without test pictures."


def _samples(run: Path) -> tuple[list[Sample] | None, int]:
    path = run / "samples.json"
    text = _text(path)
    if text is None:
        return None, 0
    rows = _decoded(text, path, _SAMPLES_HINT)
    if not isinstance(rows, list):
        raise AstreaError(f"{path} holds no list of samples", _SAMPLES_HINT)
    shown = [_sample(run, f"{path}, sample {index}", row) for index, row in enumerate(rows[:MAX_SAMPLES])]
    return shown, len(rows) - len(shown)


def _sample(run: Path, where: str, row: object) -> Sample:
    if not isinstance(row, Mapping):
        raise AstreaError(f"{where} is not an object", _SAMPLES_HINT)
    paths = {key: _inside(run, row[key], f'{where}, "{key}"') for key in ("panel", "image") if row.get(key)}
    if not paths:
        raise AstreaError(f'{where} names no picture ("panel" or "image")', _SAMPLES_HINT)
    key, file = next(iter(paths.items()))
    shares, right = row.get("shares") or {}, row.get("right")
    if not isinstance(shares, Mapping):
        raise AstreaError(f'{where}, "shares" is not an object', _SAMPLES_HINT)
    words = {name: _words(row.get(name)) for name in ("task", "question", "answer", "truth", "condition")}
    return Sample(
        _data_address(file, where),
        is_panel=key == "panel",
        right=right if isinstance(right, bool) else None,
        shares={str(expert): _share(share, f'{where}, share of "{expert}"') for expert, share in shares.items()},
        **words,
    )


def _words(value: object) -> str:
    """Text as it is; several accepted answers as one line; anything else as Python writes it."""
    if isinstance(value, list):
        return " / ".join(map(_words, value))
    return "" if value is None else str(value)


def _share(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise AstreaError(f"{where} is {str(value)[:40]!r}, not a number from 0 to 1", _SAMPLES_HINT)
    return float(value)


def _inside(run: Path, value: object, where: str) -> Path:
    """The path that a sample names, as long as it lies in the run folder: samples.json may come from anybody."""
    if not isinstance(value, str):
        raise AstreaError(f"{where} is no path", _SAMPLES_HINT)
    posix, windows = PurePosixPath(value), PureWindowsPath(value)
    named = f"{where} is {value[:100]!r}"
    if posix.is_absolute() or windows.anchor or ".." in posix.parts or ".." in windows.parts or "\0" in value:
        raise AstreaError(f"{named}, which is not a path inside the run folder", _SAMPLES_HINT)
    path = run / value
    try:
        inside = path.resolve().is_relative_to(run.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, or a name no file can have
        raise AstreaError(f"{named}, which cannot be followed: {error}", _SAMPLES_HINT) from error
    if not inside:
        raise AstreaError(f"{named}, a link that leads out of the run folder", _SAMPLES_HINT)
    return path


def _data_address(path: Path, where: str) -> str:
    """The picture decoded and encoded anew as PNG, so that nothing but pixels can reach the page."""
    image = load_image(path, name=where)
    image.thumbnail((_WIDEST, _WIDEST))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
