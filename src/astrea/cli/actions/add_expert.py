"""What add-expert does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from astrea.common.errors import AstreaError
from astrea.common.output import out, print_path
from astrea.common.progress import TerminalReporter
from astrea.model.loading import load_model
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import ExpertEntry, Recipe
from astrea.recipes.tree import read_value
from astrea.training import add_expert as add_expert_module


def add_expert(
    model: Path,
    expert: str,
    folder: Path,
    *,
    options: Sequence[str],
    recipe: str,
    overrides: Sequence[str],
    gate_weight: float | None,
    trust_remote_code: bool,
) -> None:
    """Add the expert that ``NAME=KIND`` names, with ``KEY=VALUE`` options, to a model, and write it into a folder."""
    name, equals, kind = expert.partition("=")
    if not (name and equals and kind):
        raise AstreaError(f"--expert {expert!r} does not say NAME=KIND", "such as photo=photo_expert:PhotoExpert")
    loaded_recipe = load_recipe(Recipe, recipe, overrides)
    entry = ExpertEntry(kind=kind, options=dict(parsed(given) for given in options))
    loaded, processor = load_model(model, trust_remote_code=trust_remote_code)
    with TerminalReporter() as report:
        share = add_expert_module.SHARE if gate_weight is None else gate_weight
        joined = add_expert_module.add_expert(
            loaded, processor, loaded_recipe, name, entry, folder, share=share, report=report
        )
    words = f", {joined.words} new words" if joined.words else ""
    out.print(f"{name} was added: gate weight {joined.share:.2%} on average{words}", highlight=False)
    print_path("model", folder)


def parsed(given: str) -> tuple[str, Any]:
    """KEY=VALUE, the value as YAML reads it, so that 3 is a number and [a, b] a list.

    Raises:
        AstreaError: it is not of that form, or the value is no plain data.
    """
    key, equals, value = given.partition("=")
    if not key.isidentifier() or not equals:
        raise AstreaError(f"--option {given!r} does not say KEY=VALUE", "such as --option threshold=0.01")
    return key, read_value(value, f"--option {given!r}")
