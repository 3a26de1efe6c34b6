"""What turns one recipe into another, as the ``KEY=VALUE`` words of the command line."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel

from astrea.common.errors import AstreaError
from astrea.recipes.loader import load_recipe


def changes_from(base: str, config: BaseModel) -> list[str]:
    """The overrides with which ``load_recipe(type(config), base, overrides)`` gives ``config``; [] if they are equal.

    Args:
        base: the name of a shipped recipe, or the path of one.

    Raises:
        AstreaError: no such recipe, or one that no overrides turn into ``config`` (such as with entries in another
            order, which overrides cannot say).
    """
    start, wanted = load_recipe(type(config), base), config.model_dump(mode="json")
    words: list[str] = []
    if (
        getattr(config, "HAS_STRATEGY", False)
        and wanted["model"]["strategy"] != start.model_dump()["model"]["strategy"]
    ):
        # First of all, for it leaves behind what the base says for its own.
        words = [
            f"model.{key}={_said(wanted['model'][key])}" for key in ("strategy", "options") if wanted["model"][key]
        ]
        start = load_recipe(type(config), base, words)
    words += _changes(start.model_dump(mode="json"), wanted, ())
    made = load_recipe(type(config), base, words)
    if made.model_dump_json() != config.model_dump_json():  # as text, because equal mappings may differ in order
        raise AstreaError(f"no KEY=VALUE words turn the recipe {base!r} into this one", "keep the order of its entries")
    return words


def _changes(old: dict[str, Any], new: dict[str, Any], trail: tuple[str, ...]) -> list[str]:
    words = [f"{'.'.join((*trail, key))}=null" for key in old if key not in new]
    for key, value in new.items():
        before, here = old.get(key), (*trail, key)
        # key=null takes an entry out of `experts`; in the plain data further down null would be a value like others.
        if isinstance(value, dict) and isinstance(before, dict) and (not trail or before.keys() <= value.keys()):
            words += _changes(before, value, here)
        elif key not in old or value != before:
            words.append(f"{'.'.join(here)}={_said(value)}")
    return words


def _said(value: Any) -> str:
    plain = isinstance(value, str) and re.fullmatch(r"[a-z_]+", value) and value not in ("true", "false", "null")
    return str(value) if plain else json.dumps(value)
