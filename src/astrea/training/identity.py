"""Which recipe a run is of, and what two recipes differ in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from astrea.common.errors import AstreaError
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.recipes.trail import short

MEASURED_ON = {"validation", "validation_every", "validation_records", "keep_best"}
"""Keys of `Data` that a run may go on with other values of."""

SHOWN = 3


def no_part(*recipes: Recipe) -> Any:
    """What is no part of a recipe's identity: what it is computed on, what it is evaluated on when done, and what it is
    measured on meanwhile, unless that is a share of what the run would learn from otherwise. Of a GGUF file the sha256
    counts (``llm.revision``) and not its place. Where a run's end goes by what is measured (``data.patience``), that is
    a part of it."""
    shared = any(isinstance(recipe.data.validation, float) for recipe in recipes)
    stops = any(recipe.data.patience is not None for recipe in recipes)
    known = all(recipe.llm.gguf and recipe.llm.revision for recipe in recipes)
    return {
        "runtime": True,
        "evaluation": True,
        "data": set() if stops else MEASURED_ON - {"validation"} if shared else MEASURED_ON,
        **({"llm": {"checkpoint"}} if known else {}),
    }


def config_hash(recipe: Recipe) -> str:
    """Identifies a recipe; a checkpoint of another one is refused. See `no_part`."""
    return hashlib.sha256(recipe.model_dump_json(exclude=no_part(recipe)).encode()).hexdigest()[:16]


def refuse_another(recipe: Recipe, path: Path) -> None:
    """Whether a run can go on with this recipe.

    Args:
        path: the recipe that the run was started with. Where it cannot be read, its checkpoints tell.

    Raises:
        AstreaError: it was started with another one; names the keys that differ.
    """
    try:
        other = load_recipe(Recipe, str(path), saved=True)
    except AstreaError:
        return
    if config_hash(other) == config_hash(recipe):
        return
    here, there = (one.model_dump(mode="json", exclude=no_part(recipe, other)) for one in (recipe, other))
    found = [f"{key} is {short(mine)} here and {short(theirs)} there" for key, mine, theirs in differences(here, there)]
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    shown = "; ".join(found[:SHOWN]) or "the experts stand in another order"
    raise AstreaError(
        f"{path.parent} holds a run of another recipe: {shown}{more}",
        "go on with the run's own recipe (astrea train --resume), or choose another folder",
    )


def differences(here: Any, there: Any, trail: tuple[str, ...] = ()) -> Iterator[tuple[str, Any, Any]]:
    """The dotted keys whose values differ, with both values; null where there is none."""
    if isinstance(here, dict) and isinstance(there, dict):
        for key in dict.fromkeys([*here, *there]):
            yield from differences(here.get(key), there.get(key), (*trail, key))
    elif here != there:
        yield ".".join(trail), here, there
