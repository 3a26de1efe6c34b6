"""What recipe check does."""

from __future__ import annotations

from collections.abc import Sequence

from astrea.cli.actions.recipe import file_of
from astrea.common.errors import AstreaError
from astrea.common.output import out
from astrea.common.paths import is_folder
from astrea.recipes.check import amiss
from astrea.recipes.loader import load_with_origins
from astrea.recipes.recipe import Recipe


def check(recipe: str, overrides: Sequence[str]) -> None:
    """Say that nothing is wrong with a recipe.

    Raises:
        AstreaError: something is; a line for each fault.
    """
    loaded, written = load_with_origins(Recipe, file_of(recipe), overrides, saved=is_folder(recipe))
    if faults := amiss(loaded, written):
        raise AstreaError("\n".join(faults), "correct these, then check again")
    steps = " + ".join(str(getattr(loaded, stage).steps) for stage in ("align", "fuse", "tune"))
    out.print(f"{recipe}: nothing is wrong", highlight=False, soft_wrap=True)
    out.print(f"  experts  {', '.join(loaded.experts)}", highlight=False, soft_wrap=True)
    out.print(f"  data     {loaded.data.train or 'the embedded world'}", highlight=False, soft_wrap=True)
    out.print(f"  steps    {steps} (align, fuse, tune)", highlight=False)
