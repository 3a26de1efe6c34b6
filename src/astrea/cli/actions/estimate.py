"""What estimate does."""

from __future__ import annotations

from collections.abc import Sequence

from astrea.common.output import out, print_json
from astrea.common.progress import TerminalReporter
from astrea.estimate import table
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe


def estimate(
    recipe: str, overrides: Sequence[str], *, checkpointing: bool | None, utilisation: float, as_json: bool
) -> None:
    """Print what training a recipe costs."""
    loaded = load_recipe(Recipe, recipe, overrides)
    with TerminalReporter() as report:
        found = table.estimate(loaded, checkpointing=checkpointing, utilisation=utilisation, report=report)
    if as_json:
        print_json(found.as_dict())
    else:
        out.print(table.for_terminal(found))
