"""`astrea.train`: a run from a recipe and changes to it, as `astrea train` starts it from a shell."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from astrea.common.errors import AstreaError
from astrea.common.progress import SILENT, Reporter
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training import trainer
from astrea.training.extras import require_extras


def train(
    recipe: str | Path | Recipe,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    report: Reporter = SILENT,
    **changes: Any,
) -> Path:
    """Train a recipe; returns the folder of the trained model, for `astrea.load`.

    Args:
        recipe: the name of a shipped recipe (tiny, paper, photo, small, base, large), a YAML file, or a `Recipe`.
        folder: the run's folder; None = ``runs/<name of the recipe>``. The model lies in ``folder/model``.
        resume: go on with the run in the folder, if there is one.
        report: where progress goes: nowhere, or ``TerminalReporter()`` of `astrea.common.progress`.
        changes: to the recipe: ``seed=1``, ``tune={"steps": 100}``, or with dotted names ``**{"tune.steps": 100}``.

    Raises:
        AstreaError: anything the user can correct: an unknown key, data that cannot be read, another run in the folder.
        Interrupted: SIGINT or SIGTERM; a checkpoint has been saved.
    """
    if isinstance(recipe, Recipe):
        if changes:
            raise AstreaError("changes are for a recipe's name or file", "change the Recipe by its model_copy")
        loaded = recipe
    else:
        loaded = load_recipe(Recipe, str(recipe), [f"{key}={value}" for key, value in as_overrides(changes)])
    require_extras(loaded)
    into = Path("runs") / loaded.name if folder is None else Path(folder)
    return trainer.train(loaded, into, resume=resume, report=report)


def as_overrides(changes: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and value, as JSON, of each change. A mapping changes the keys that it names and no others.

    Raises:
        AstreaError: a value that no recipe can hold.
    """
    for key, value in changes.items():
        if isinstance(value, Mapping) and value:
            yield from as_overrides(value, f"{prefix}{key}.")
            continue
        try:
            yield f"{prefix}{key}", json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise AstreaError(
                f"{prefix}{key}: a recipe holds no {type(value).__name__}", "give text, numbers, lists or mappings"
            ) from error
