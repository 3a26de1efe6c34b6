"""What a recipe needs beyond this package's own requirements, asked for before anything is computed."""

from __future__ import annotations

from astrea.common.installation import require_extra
from astrea.data.readers.detect import TABLE_ENDINGS
from astrea.experts.packaged.kinds import EXTRAS
from astrea.recipes.recipe import Recipe
from astrea.training.trackers import installed


def require_extras(recipe: Recipe) -> None:
    """Make sure that the libraries are there which a run uses late: after loading, or after an epoch of features.

    Raises:
        AstreaError: one is missing; tells how to install it.
    """
    if recipe.llm.low_rank is not None:
        require_extra("lora", "low-rank tuning", "or leave llm.low_rank out")
    if recipe.llm.gguf:
        require_extra("gguf", f"the language model {recipe.llm.checkpoint}")
    if any(name.lower().endswith(TABLE_ENDINGS) for name in recipe.data.named_files):
        require_extra("data", "reading Parquet and Arrow files")
    for name, entry in recipe.experts.items():
        if entry.kind in EXTRAS:
            require_extra(EXTRAS[entry.kind], f"expert {name!r} ({entry.kind})", f"or leave experts.{name} out")
    installed(recipe.runtime.tracker)
