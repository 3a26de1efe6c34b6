"""Any model's scores on the tasks of the embedded world, as its own recipe or another one draws it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from astrea.common.errors import AstreaError
from astrea.common.installation import SHIPPED_NAME
from astrea.common.progress import SILENT, Reporter
from astrea.data.worlds import open_world
from astrea.model.loaded import LoadedModel
from astrea.world.evaluation.config import learned_from_others, measured_on
from astrea.world.evaluation.tasks import TASKS

SPLITS = ("test", "validation")


def evaluate_on_tasks(
    loaded: LoadedModel,
    *,
    tasks: Sequence[str] | None = None,
    masking: bool = False,
    split: str = "test",
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    report: Reporter = SILENT,
) -> dict[str, Any]:
    """Scores 0..100 of a model on some or all tasks.

    Args:
        tasks: names of tasks; None = all. masking: also without each expert in turn. split: test or validation.
        recipe: name or file of the recipe whose world is drawn; None = the model's own. overrides: changes to it.

    Raises:
        AstreaError: an unknown task or split, or a recipe that cannot be read.
    """
    chosen = check_names(tasks, split)
    folder = Path(loaded.model.name_or_path or SHIPPED_NAME)
    measured = measured_on(folder, loaded.model.config.image_size, recipe=recipe, overrides=overrides)
    if learned_from_others(folder):
        report.say(
            "this model was not trained on the embedded world, whose tasks say little about it; "
            "--data FILE measures it on data like its own"
        )
    return open_world(measured).measure(
        loaded.model, loaded.processor, tasks=chosen, masking=masking, split=split, report=report
    )


def check_names(tasks: Sequence[str] | None, split: str) -> tuple[str, ...]:
    """The tasks that were asked for, once each of the names is known.

    Raises:
        AstreaError: one is not.
    """
    unknown = [name for name in tasks or () if name not in TASKS]
    if unknown:
        raise AstreaError(f"unknown task {unknown[0]!r}", f"known tasks: {', '.join(TASKS)}")
    if split not in SPLITS:
        raise AstreaError(f"unknown split {split!r}", f"choose {' or '.join(SPLITS)}")
    return TASKS if tasks is None else tuple(tasks)
