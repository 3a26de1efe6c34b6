"""Recipes that nobody should write: shipped ones with odd values, keys, nesting and YAML tricks, and overrides."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from fuzz.harness import Case

ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 10**9, 10**30, 1e308, -1e-308, float("inf"), float("nan")),
    *("", "x", "\x00", "a" * 5000, "../../etc/passwd", "/dev/zero", "~", "{}", "[", "!!python/object:os.system"),
    *([], {}, [[]], [None], {"a": {"a": {"a": 1}}}, {"kind": "evil:Evil"}, ["adapters", "adapters"], {1: 2}),
    *({"checkpoint": "/etc/passwd"}, {"kind": "detection", "checkpoint": "x/y"}, [{"path": "/dev/zero"}]),
)
FAST: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
MARKS = ("", ":", "\n", " ", "[", "{", "&a", "*a", "!", "\x00", "-")
PAIRS = ("ab", "bc", "cd", "de", "ef", "fg", "gh")
TEXTS = (
    "&a [*a]",
    "a: &a [1, *a]",
    "x: &x {<<: *x}",
    "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a}]\n" for a, b in PAIRS),
    "!!python/object/apply:os.system ['touch executed']",
    "!!python/name:os.system",
    "!!binary aGVsbG8=",
    "? [1, 2]\n: 3",
    "--- 1\n--- 2",
    "%YAML 9.9\n---\nname: x",
    "name: x\nname: y",
    "name: 2024-01-01",
    "seed: 0o17",
    "seed: 1_000",
    "seed: 1:30:00",
    "<<: [{}]",
    "base: no-such-recipe",
    "base: ../../../etc/passwd",
    "base: /etc/passwd",
    "base: [tiny]",
    "base: recipe.yaml",
    "[" * 5000,
    "{a: " * 3000,
    "- " * 5000,
    "'" * 9999,
    '"\\ud800"',
    "\ufeffname: x",
    "name: \x07",
    "\t- a",
    "x" * 200_000,
    "#" * 100_000,
    "",
)


def cases(count: int, seed: int, folder: Path) -> Iterator[Case]:
    """One in eight is written by hand or made of broken text; the others are shipped recipes with a few odd values."""
    from astrea.recipes.loader import shipped_recipes

    names = sorted(shipped_recipes())
    place = folder / "recipes"
    place.mkdir()
    trees = {name: yaml.safe_load(_text(name)) for name in names}
    read(_file(place, _text("tiny")), [])  # warm
    chance = random.Random(seed)
    for number in range(count):
        if number % 8 == 0:
            text, said = _broken(chance, number // 8, _text(chance.choice(names))), []
        else:
            tree = copy.deepcopy(trees[chance.choice(names)])
            for _ in range(chance.randint(0, 3)):
                _spoil(chance, tree)
            text = yaml.dump(tree, Dumper=FAST, sort_keys=False)
            said = [_override(chance, tree) for _ in range(chance.randint(0, 2))]
        path = _file(place, text)
        yield Case(f"recipe {number}: {text[:60]!r} {said!r:.120}", partial(read, path, said), place)


def read(path: Path, overrides: list[str]) -> object:
    """What `astrea train` does with a recipe before it trains, and there and back again."""
    from astrea.recipes.loader import dump_recipe, load_recipe
    from astrea.recipes.recipe import Recipe

    recipe = load_recipe(Recipe, str(path), overrides)
    path.write_text(dump_recipe(recipe))
    again = load_recipe(Recipe, str(path))
    if again.model_dump_json() != recipe.model_dump_json():
        raise ValueError("a recipe does not survive being written and read again")
    if recipe.llm.checkpoint is None and not any(entry.checkpoint for entry in recipe.experts.values()):
        _build(recipe)
    return again


def _build(run: Any) -> None:
    """The experts of a recipe, without memory, as an estimate builds them."""
    from astrea.experts.bank import expert_specs
    from astrea.experts.pretrained.entry import resolve

    expert_specs({name: resolve(name, entry) for name, entry in run.experts.items() if ":" not in entry.kind})


def _text(name: str) -> str:
    import astrea.recipes

    return (Path(astrea.recipes.__file__).parent / f"{name}.yaml").read_text()


def _file(place: Path, text: str) -> Path:
    path = place / "recipe.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


def _broken(chance: random.Random, number: int, text: str) -> str:
    """By hand as long as there are some, then characters taken out, put in and swapped."""
    if number < len(TEXTS):
        return TEXTS[number]
    letters = list(text)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(letters))
        letters[at : at + chance.choice((0, 1, 40))] = chance.choice(
            ("", ":", "\n", " ", "[", "{", "&a", "*a", "!", "\x00", "-")
        )
    return "".join(letters)


def _spoil(chance: random.Random, tree: dict[str, Any]) -> None:
    inner: Any = tree
    while True:
        key = chance.choice(list(inner)) if inner else "new"
        if isinstance(inner.get(key), dict) and inner[key] and chance.random() < 0.7:
            inner = inner[key]
            continue
        break
    way = chance.random()
    if way < 0.7:
        inner[key] = chance.choice(ODD)
    elif way < 0.85:
        inner[chance.choice(("train", "a/b", "", "self", "forward", "x" * 300, "0", "experts"))] = chance.choice(ODD)
    else:
        inner.pop(key, None)


def _override(chance: random.Random, tree: dict[str, Any]) -> str:
    parts = [chance.choice([*tree, "experts", "fuse", "model", "nothing"])]
    inner = tree.get(parts[0])
    while isinstance(inner, dict) and inner and chance.random() < 0.8:
        parts.append(str(chance.choice(list(inner))))
        inner = inner.get(parts[-1])
    value = chance.choice(ODD)
    sign = chance.choice(("=", "=", "=", "==", " = ", ""))
    return (
        ".".join(parts)
        + sign
        + (str(value) if chance.random() < 0.5 else yaml.safe_dump(value, default_flow_style=True).strip())
    )
