"""Strict recipes: YAML plus ``key=value`` overrides becomes a pydantic model, or an error that names its line."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from astrea.errors import AstreaError
from astrea.paths import is_file, is_folder
from astrea.recipes.problems import explain
from astrea.recipes.schema import keys_of
from astrea.recipes.tree import Tree
from astrea.recipes.yaml12 import MAX_BYTES, Dumper, compose

T = TypeVar("T", bound=BaseModel)

SHIPPED = Path(__file__).parent


def load_recipe(model: type[T], name_or_path: str, overrides: Sequence[str] = ()) -> T:
    """Reads a recipe, applies the overrides in order, and validates the result strictly against ``model``.

    Args:
        model: the pydantic class; it and its nested models should be frozen with ``extra="forbid"``.
        name_or_path: the name of a shipped recipe (``tiny``) or the path of a YAML file. A shipped name wins.
        overrides: ``dotted.key=value``; the value is read as YAML, a number in the key indexes a list. ``null`` for an
            entry of a mapping of parts (``experts.detection=null``) takes the entry out.

    Raises:
        AstreaError: a missing, unreadable, oversized or malformed file or override, and every unknown, missing or
            ill-typed key, with its dotted name, its file and line, what was expected and the nearest valid key.
    """
    path = _find(name_or_path)
    recipe = Tree()
    root = compose(_read(path), str(path))
    if root is None:
        raise AstreaError(f"{path}: the recipe is empty", f"Write keys into it: {', '.join(keys_of(model)[:12])}.")
    if not isinstance(root, yaml.MappingNode):
        where = f"{path}, line {root.start_mark.line + 1}"
        kind: str = root.id  # type: ignore[attr-defined]
        raise AstreaError(f"{where}: a recipe is a mapping, not a {kind}", "Write it as lines of 'key: value'.")
    recipe.data = recipe.build(root, (), lambda node: f"{path}, line {node.start_mark.line + 1}")
    for text in overrides:
        recipe.override(text, model)
    try:
        # JSON mode is what lets strict validation still take a list for a tuple and text for a path.
        return model.model_validate_json(json.dumps(recipe.data), strict=True)
    except ValidationError as error:
        raise explain(error, model, recipe) from None


def dump_recipe(config: BaseModel) -> str:
    """The YAML of a configuration, every key written out; ``load_recipe`` reads it back to an equal one."""
    data = config.model_dump(mode="json", by_alias=True, round_trip=True)
    return yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=10**6)


def shipped_recipes() -> list[str]:
    """The names of the recipes in the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def _find(name_or_path: str) -> Path:
    if re.fullmatch(r"[A-Za-z0-9_-]+", name_or_path):
        shipped = SHIPPED / f"{name_or_path}.yaml"
        if is_file(shipped):
            return shipped
    if is_file(path := Path(name_or_path)):
        return path
    what = "a folder, not a recipe" if is_folder(path) else "not a file, nor the name of a shipped recipe"
    names = shipped_recipes()
    near = difflib.get_close_matches(path.stem, names, n=1)
    known = f"Shipped recipes: {', '.join(names)}." if names else "Give the path of a YAML file."
    raise AstreaError(f"{name_or_path!r} is {what}", (f"Did you mean {near[0]!r}? " if near else "") + known)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise AstreaError(f"{path}: larger than {MAX_BYTES // 1024} KiB", "A recipe is short; check the path.")
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise AstreaError(f"{path}: cannot be read ({error.strerror})", "Check the file's permissions.") from error
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise AstreaError(f"{path}, line {line}: not UTF-8 text", "Save the file as UTF-8.") from None
