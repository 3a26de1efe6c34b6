"""A recipe's file as a tree, on top of the recipe that it names as its ``base``.

``base: tiny`` (or another shipped name, or a file relative to the one that says so) stands for all that is written
there. What the recipe says itself comes on top: mappings are taken key by key, anything else as a whole. An entry of a
mapping of parts (``experts``) is taken as a whole too where it says its ``kind``, and ``null`` takes it out.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path, PurePosixPath, PureWindowsPath

from pydantic import BaseModel
from ruamel.yaml.nodes import MappingNode

from astrea.common.errors import AstreaError
from astrea.common.paths import file_guard, is_file, is_folder, open_file, refuse_url
from astrea.recipes.idle import Idle, settle
from astrea.recipes.schema import keys_of
from astrea.recipes.strategies import leave_behind, strategy_of
from astrea.recipes.trail import short
from astrea.recipes.tree import Tree
from astrea.recipes.yaml import MAX_BYTES, compose, kind_of

SHIPPED = Path(__file__).parent
BASE = "base"
MAX_FILES = 8
"""That may be based on each other."""


def based_tree(
    path: Path, model: type[BaseModel], above: tuple[Path, ...] = (), *, idle: list[Idle] | None = None
) -> Tree:
    """The tree of a recipe's file, its bases included.

    Args:
        model: what the recipe is to become. Where that has a key ``base`` itself, the key means nothing here.
        above: the files that are based on this one.
        idle: takes in the keys that another one leaves without effect (`astrea.recipes.idle`); None = nobody asks.

    Raises:
        AstreaError: a file that cannot be read or is no recipe; a ``base`` that is none, or leads back to its own file.
    """
    recipe = read_tree(path, model)
    if BASE in keys_of(model) or BASE not in recipe.data:
        if idle is not None:
            idle += settle(recipe, {})
        return recipe
    where, named = recipe.origin((BASE,)), recipe.data[BASE]
    if not isinstance(named, str):
        raise AstreaError(f"{where}: 'base' is {short(named)}, not a recipe", "Write the name of one, such as tiny.")
    below = base_of(named, path, where)
    chain = (*above, path)
    if any(below.samefile(other) for other in chain):
        raise AstreaError(f"{where}: 'base' leads back to {below}", "Let it name another recipe.")
    if len(chain) >= MAX_FILES:
        raise AstreaError(f"{where}: more than {MAX_FILES} recipes are based on each other", "Write some into one.")
    made = based_tree(below, model, chain, idle=idle)
    made.forget((BASE,))
    recipe.forget((BASE,))
    if "name" in keys_of(model) and "name" not in recipe.data:  # or the run's folder would be the base's
        recipe.data["name"], recipe.origins[("name",)] = path.stem, f"{path}"
    if getattr(model, "HAS_STRATEGY", False):
        leave_behind(made, strategy_of(recipe))
    before = dict(made.origins)
    made.lay_over(recipe, model)
    if idle is not None:
        idle += settle(made, before)
    return made


def base_of(named: str, path: Path, where: str) -> Path:
    """The file of the ``base`` that the recipe ``path`` names."""
    refuse_url(named, f"{where}: 'base': ")
    if PurePosixPath(named).is_absolute() or PureWindowsPath(named).anchor:
        raise AstreaError(f"{where}: 'base' is {short(named)}", "Write its path relative to this file.")
    beside = path.parent / named
    if not is_shipped(named) and is_file(beside):
        if beside.suffix not in (".yaml", ".yml"):
            raise AstreaError(f"{where}: 'base' is {short(named)}, not a recipe", "Name a file that ends with .yaml.")
        return beside
    try:
        return find_recipe(named if is_shipped(named) else str(beside))
    except AstreaError as error:
        raise AstreaError(f"{where}: 'base': {error.message}", error.hint) from None


def read_tree(path: Path, model: type[BaseModel]) -> Tree:
    """The tree of a file alone."""
    recipe = Tree()
    root = compose(_read(path), str(path))
    if root is None:
        raise AstreaError(f"{path}: the recipe is empty", f"Write keys into it: {', '.join(keys_of(model)[:12])}.")
    if not isinstance(root, MappingNode):
        where = f"{path}, line {root.start_mark.line + 1}"
        raise AstreaError(
            f"{where}: a recipe is a mapping, not a {kind_of(root)}", "Write it as lines of 'key: value'."
        )
    recipe.data = recipe.build(root, (), lambda node: f"{path}, line {node.start_mark.line + 1}")
    return recipe


def shipped_recipes() -> list[str]:
    """The names of the recipes in the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def is_shipped(name: str) -> bool:
    """Whether this is the name of a recipe in the package."""
    return re.fullmatch(r"[A-Za-z0-9_-]+", name) is not None and is_file(SHIPPED / f"{name}.yaml")


def find_recipe(name_or_path: str) -> Path:
    """The file of a recipe.

    Raises:
        AstreaError: there is none.
    """
    if is_shipped(name_or_path):
        return SHIPPED / f"{name_or_path}.yaml"
    if is_file(path := Path(name_or_path)):
        return path
    what = "a folder, not a recipe" if is_folder(path) else "not a file, nor the name of a shipped recipe"
    names = shipped_recipes()
    near = difflib.get_close_matches(path.stem, names, n=1)
    known = f"Shipped recipes: {', '.join(names)}." if names else "Give the path of a YAML file."
    raise AstreaError(f"{name_or_path!r} is {what}", (f"Did you mean {near[0]!r}? " if near else "") + known)


def _read(path: Path) -> str:
    with open_file(path, "recipe") as file, file_guard(path):
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise AstreaError(f"{path}: larger than {MAX_BYTES // 1024} KiB", "A recipe is short; check the path.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise AstreaError(f"{path}, line {line}: not UTF-8 text", "Save the file as UTF-8.") from None
