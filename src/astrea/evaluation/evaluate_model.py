"""`astrea.evaluate`: a model's scores on a data file or on the embedded world, as `astrea evaluate` prints them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from astrea.common.errors import AstreaError
from astrea.common.lazy import load_object
from astrea.common.progress import SILENT, Reporter
from astrea.data.readers.sources import open_sources
from astrea.evaluation.own_data.held_out import measure
from astrea.model.loaded import LoadedModel, load

WORLD = "astrea.world.evaluation.evaluate_model:evaluate_on_tasks"
"""What evaluates a model on the tasks of the embedded world, by name, since nothing here imports that package."""


def evaluate(
    model: LoadedModel | str | Path,
    data: str | Path | None = None,
    *,
    images: str | Path | None = None,
    tasks: Sequence[str] | None = None,
    limit: int | None = None,
    batch: int = 16,
    report: Reporter = SILENT,
) -> dict[str, Any]:
    """A model's scores; nothing is written.

    Args:
        model: what `astrea.load` gave, or what it takes.
        data: a data file of your own, or a pattern; None = the tasks of the embedded world.
        images: with ``data``: the folder that the pictures' paths start at; None = the data file's.
        tasks: without ``data``: names of the world's tasks; None = all.
        limit: with ``data``: only the first records of each file.
        batch: with ``data``: questions at a time.
        report: where progress goes.

    Returns:
        What ``results.json`` of a run holds: scores 0..100 by task or kind of answer, each beside the blind one.

    Raises:
        AstreaError: model or data cannot be read, an unknown task, or arguments that do not go together.
    """
    loaded = model if isinstance(model, LoadedModel) else load(model)
    if data is None:
        if images is not None or limit is not None:
            raise AstreaError("images and limit are for data of your own", "give data, or leave them out")
        results: dict[str, Any] = load_object(WORLD)(loaded, tasks=tasks, report=report)
        return results
    if tasks is not None:
        raise AstreaError("tasks are those of the embedded world", "leave tasks or data out")
    folder = None if images is None else Path(images)
    sources = open_sources(str(data), images=folder, option="images", report=report)
    return measure(*loaded, sources, limit=limit, batch=batch, report=report).results
