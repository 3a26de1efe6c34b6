"""Strict recipes: YAML plus ``key=value`` overrides becomes a pydantic model, or an error that names its line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from astrea.common.errors import AstreaError
from astrea.recipes.based import based_tree, find_recipe, shipped_recipes
from astrea.recipes.idle import Idle, refuse_idle, settle, without_unread
from astrea.recipes.problems import explain
from astrea.recipes.renamed import refuse_old_keys, rename_old_keys
from astrea.recipes.strategies import forget_unread, leave_behind, strategy_of
from astrea.recipes.tree import Tree
from astrea.recipes.yaml import MAX_BYTES, MAX_NODES, write

__all__ = ["dump_recipe", "load_recipe", "load_with_origins", "shipped_recipes"]

T = TypeVar("T", bound=BaseModel)

SHORTER = "name the files by a pattern (shards/*.tar), or say less."


def load_recipe(
    model: type[T], name_or_path: str, overrides: Sequence[str] = (), *, then: Sequence[str] = (), saved: bool = False
) -> T:
    """Reads a recipe, applies the overrides in order, and validates the result strictly against ``model``.

    Args:
        model: the pydantic class; it and its nested models should be frozen with ``extra="forbid"``.
        name_or_path: the name of a shipped recipe (``tiny``) or the path of a YAML file. A shipped name wins. Its key
            ``base`` may name another one, see `astrea.recipes.based`.
        overrides: ``dotted.key=value``; the value is read as YAML, a number in the key indexes a list. ``null`` for an
            entry of a mapping of parts (``experts.detection=null``) takes the entry out.
        then: overrides of the result: where they choose another fusion strategy, what was said for the former one is
            left behind, as with a base's.
        saved: the file was written by a run, perhaps an older one: keys that had other names then are read, and those
            that have no effect stay as they are.

    Raises:
        AstreaError: a missing, unreadable, oversized or malformed file or override, and every unknown, missing or
            ill-typed key, with its dotted name, its file and line, what was expected and the nearest valid key.
    """
    return load_with_origins(model, name_or_path, overrides, then=then, saved=saved)[0]


def load_with_origins(
    model: type[T], name_or_path: str, overrides: Sequence[str] = (), *, then: Sequence[str] = (), saved: bool = False
) -> tuple[T, Tree]:
    """`load_recipe`, and where each value of it was written."""
    idle: list[Idle] = []
    checked = getattr(model, "HAS_STRATEGY", False) and not saved
    recipe = based_tree(find_recipe(name_or_path), model, idle=idle if checked else None)
    renamed: Mapping[str, str] = getattr(model, "RENAMED", {})
    if saved:
        rename_old_keys(recipe, renamed)
        forget_unread(recipe)
    for layer in (overrides, then):
        before = dict(recipe.origins)
        _lay_over(recipe, layer, model)
        if checked:
            idle += settle(recipe, before)
    refuse_old_keys(recipe, renamed)
    refuse_idle(idle)
    try:
        # JSON mode is what lets strict validation still take a list for a tuple and text for a path.
        return model.model_validate_json(json.dumps(recipe.data), strict=True), recipe
    except ValidationError as error:
        raise explain(error, model, recipe) from None


def _lay_over(recipe: Tree, overrides: Sequence[str], model: type[BaseModel]) -> None:
    if getattr(model, "HAS_STRATEGY", False) and any(text.lstrip().startswith("model") for text in overrides):
        tried = deepcopy(recipe)
        for text in overrides:
            tried.override(text, model)
        leave_behind(recipe, strategy_of(tried))
    for text in overrides:
        recipe.override(text, model)


def dump_recipe(config: BaseModel) -> str:
    """The YAML of a configuration, every key written out; ``load_recipe`` reads it back to an equal one.

    Raises:
        AstreaError: so much is in it that it could not be read back.
    """
    data = config.model_dump(mode="json", by_alias=True, round_trip=True)
    if getattr(config, "HAS_STRATEGY", False):
        data = without_unread(data, defaults_of(type(config)))
    text = write(data)
    if len(text.encode()) > MAX_BYTES:
        raise AstreaError(f"the recipe, every key written out, is larger than {MAX_BYTES // 1024} KiB", SHORTER)
    if count_nodes(data) > MAX_NODES:
        raise AstreaError(f"the recipe, every key written out, holds more than {MAX_NODES:,} values", SHORTER)
    return text


def defaults_of(model: type[BaseModel]) -> dict[str, Any]:
    """The default of every key of the parts of a recipe that may be left out as a whole."""
    fields = model.model_fields.items()
    return {name: field.default.model_dump() for name, field in fields if isinstance(field.default, BaseModel)}


def count_nodes(data: Any) -> int:
    """Values of plain data, keys and what holds others counted, as the reader of YAML counts them."""
    if isinstance(data, dict):
        return 1 + sum(1 + count_nodes(value) for value in data.values())
    return 1 + sum(map(count_nodes, data)) if isinstance(data, list | tuple) else 1
