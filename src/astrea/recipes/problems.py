"""What is wrong with a recipe, said with its place, what was expected there and the hint."""

from __future__ import annotations

import difflib
import re
from typing import Any

from pydantic import BaseModel, ValidationError

from astrea.common.errors import AstreaError
from astrea.recipes.part import BadKey
from astrea.recipes.schema import keys_of, models_at
from astrea.recipes.trail import WORDS, Trail, dotted, short
from astrea.recipes.tree import Tree

MAX_PROBLEMS = 8


def explain(error: ValidationError, model: type[BaseModel], recipe: Tree) -> AstreaError:
    """Every problem that pydantic found (the first few), each with the line that wrote it and its hint."""
    found: dict[Trail, list[Any]] = {}
    for entry in error.errors(include_url=False):
        found.setdefault(_trail(entry, recipe.data), []).append(entry)
    # A union complains once per branch: what is said deepest inside the value is about the branch that was meant.
    outer = {t[:i] for t in found for i in range(len(t))}
    deepest = [t for t in found if t not in outer]
    problems = {t: _problem(t, found[t], model, recipe) for t in deepest[:MAX_PROBLEMS]}
    lines = [f"{recipe.origin(trail)}: {message}" for trail, (message, _) in problems.items()]
    lines += [f"... and {len(deepest) - MAX_PROBLEMS} more"] * (len(deepest) > MAX_PROBLEMS)
    return AstreaError("\n".join(lines), " ".join(dict.fromkeys(hint for _, hint in problems.values())))


def _trail(entry: Any, data: Any) -> Trail:
    """Pydantic's location without the labels of union branches, which are no keys of the data."""
    trail: Trail = ()
    for i, part in enumerate(entry["loc"], start=1):
        if part in data if isinstance(data, dict) else isinstance(data, list) and part in range(len(data)):
            data, trail = data[part], (*trail, part)
        elif entry["type"] == "missing" and i == len(entry["loc"]):
            trail = (*trail, part)
    error = entry.get("ctx", {}).get("error")
    return (*trail, *error.trail) if isinstance(error, BadKey) else trail


def _problem(trail: Trail, entries: list[Any], model: type[BaseModel], recipe: Tree) -> tuple[str, str]:
    # One branch of a union forbids the key that another knows: then the other's complaint is the one that helps.
    entries = [entry for entry in entries if entry["type"] != "extra_forbidden"] or entries
    key, kinds, entry = dotted(trail), {entry["type"] for entry in entries}, entries[0]
    if "extra_forbidden" in kinds:
        keys = [k for m in models_at(model, trail[:-1], recipe.data) for k in keys_of(m)]
        near = difflib.get_close_matches(str(trail[-1]), keys, n=1, cutoff=0.5)
        hint = f"Did you mean {dotted((*trail[:-1], near[0]))!r}?" if near else "Remove it or use a valid key."
        what = "does not go with its neighbours" if trail[-1] in keys else "is not a known key"
        return f"{key!r} {what}; valid keys: {', '.join(dict.fromkeys(keys)) or 'none'}", hint
    if kinds == {"missing"}:
        return f"the key {key!r} is missing", f"Add {key!r}."
    value = entry["input"]
    if {"value_error", "assertion_error"} & kinds:
        said = str(entry["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
        return f"{key!r}: {said}" if trail else said, "Correct the value."
    if "union_tag_invalid" in kinds or "literal_error" in kinds or "enum" in kinds:
        ctx = next(e for e in entries if e["type"] in ("union_tag_invalid", "literal_error", "enum"))["ctx"]
        expected = str(ctx.get("expected_tags") or ctx["expected"])
        value = ctx.get("tag", value)
        near = difflib.get_close_matches(str(value), re.findall(r"'([^']*)'", expected), n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Use one of these."
        if "discriminator" in ctx:
            key = f"{key}.{ctx['discriminator'].strip(chr(39))}".removeprefix(".")
        return f"{key!r}: expected {expected}, got {short(value)}", hint
    texts = (WORDS.get(e["type"], e["msg"].removeprefix("Input should be ")) for e in entries)
    expected = " or ".join(dict.fromkeys(texts))
    return f"{key!r}: expected {expected}, got {short(value)}", _hint(kinds, value)


def _hint(kinds: set[str], value: Any) -> str:
    if isinstance(value, float) and "int_type" in kinds and value.is_integer() and abs(value) < 1e15:
        return f"Write {int(value)}."
    if isinstance(value, str) and "bool_type" in kinds and value.lower() in ("on", "off", "yes", "no", "y", "n"):
        return "Write true or false."
    if "string_type" in kinds and isinstance(value, bool | int | float):
        return "Put quotes around it if text is meant."
    return "Correct the value."
