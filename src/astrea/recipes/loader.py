"""Strict YAML recipes: a file plus ``key=value`` overrides becomes a pydantic model, or an error that names the line.

The YAML read here is a small, safe part of the language: plain mappings, lists and scalars of YAML 1.2 (``1e-3`` is a
number, ``on`` and ``yes`` are text, ``010`` is ten), anchors within a size cap, no other tags, ``<<`` merges nothing.
"""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from astrea.errors import AstreaError

T = TypeVar("T", bound=BaseModel)
Trail = tuple[str | int, ...]  # where a value sits: ("experts", "clip", "layers", 0)

MAX_BYTES = 1 << 20
MAX_NODES = 10_000
MAX_DEPTH = 64
MAX_INT_CHARS = 400  # Python refuses to print integers of more than some 4,300 digits
MAX_PROBLEMS = 8
SHIPPED = Path(__file__).parent

_CORE = "tag:yaml.org,2002:"
_RESOLVERS = (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^(?:[-+]?[0-9]+(?:_[0-9]+)*|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2 scalars and a cap on nodes and depth."""

    yaml_implicit_resolvers: dict = {}
    _nodes = _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._nodes += 1
        self._depth += 1
        if self._nodes > MAX_NODES or self._depth > MAX_DEPTH:
            raise RecursionError  # before the tree is built, so that a bomb costs nothing
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Dumper(yaml.SafeDumper):
    """Quotes exactly what ``_Loader`` would otherwise read as something other than text."""

    yaml_implicit_resolvers: dict = {}

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.Node:
        # PyYAML leaves these line breaks bare in other quotes, where reading folds them into spaces.
        return self.represent_scalar(_CORE + "str", text, style='"' if re.search("[\x85\u2028\u2029]", text) else None)


_Dumper.add_representer(str, _Dumper.represent_text)
for _name, _pattern, _first in _RESOLVERS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_CORE + _name, re.compile(_pattern), list(_first))


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
    recipe = _Recipe()
    root = _compose(_read(path), str(path))
    if root is None:
        raise AstreaError(f"{path}: the recipe is empty", f"Write keys into it: {', '.join(_keys_of(model)[:12])}.")
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
        raise _explain(error, model, recipe) from None


def dump_recipe(config: BaseModel) -> str:
    """The YAML of a configuration, every key written out; ``load_recipe`` reads it back to an equal one."""
    data = config.model_dump(mode="json", by_alias=True, round_trip=True)
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)


def shipped_recipes() -> list[str]:
    """The names of the recipes in the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def _find(name_or_path: str) -> Path:
    if re.fullmatch(r"[A-Za-z0-9_-]+", name_or_path):
        shipped = SHIPPED / f"{name_or_path}.yaml"
        if shipped.is_file():
            return shipped
    if (path := Path(name_or_path)).is_file():
        return path
    what = "a folder, not a recipe" if path.is_dir() else "not a file, nor the name of a shipped recipe"
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


def _compose(text: str, where: str) -> yaml.Node | None:
    try:
        return _Loader(text).get_single_node()
    except RecursionError:
        raise _too_large(where) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise AstreaError(f"{where}{line}: not valid YAML: {error.problem}", "Mend the syntax there.") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        line = f", line {text.count(chr(10), 0, error.position) + 1}" if hasattr(error, "position") else ""
        reason = " ".join(str(error).split())
        raise AstreaError(f"{where}{line}: not valid YAML: {reason}", "Remove or correct the character.") from None


def _too_large(where: str) -> AstreaError:
    return AstreaError(
        f"{where}: more than {MAX_NODES:,} values (aliases counted each time) or nested deeper than {MAX_DEPTH}",
        "Write the recipe without repeated aliases and deep nesting.",
    )


class _Recipe:
    """Plain data and, for every place in it, the file and line (or the override) that wrote it."""

    def __init__(self) -> None:
        self.data: Any = {}
        self.origins: dict[Trail, str] = {}
        self._visited = 0

    def build(self, node: yaml.Node, trail: Trail, at: Callable[[yaml.Node], str]) -> Any:
        """Turns a node into data; ``at`` says where a node was written."""
        # Aliases share nodes, so visits are counted, not nodes; the depth stops an alias of itself.
        self._visited += 1
        if self._visited > MAX_NODES or len(trail) > MAX_DEPTH:
            raise _too_large(at(node))
        self.origins.setdefault(trail, at(node))
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node, at(node))
        _check_tag(node, at(node))
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*trail, i), at) for i, item in enumerate(node.value)]
        data: dict[str, Any] = {}
        for key_node, value in node.value:
            here = at(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise AstreaError(f"{here}: a key is a {key_node.id}", "Keys are plain words.")
            _check_tag(key_node, here)
            key = _clean(key_node.value, here)
            inner = (*trail, key)
            if key in data:
                first = self.origins[inner]
                raise AstreaError(f"{here}: {_dotted(inner)!r} is written twice (first: {first})", "Keep one of them.")
            self.origins[inner] = here
            data[key] = self.build(value, inner, at)
        return data

    def override(self, text: str, model: type[BaseModel]) -> None:
        """Sets one ``dotted.key=value``, making the mappings on the way that are not there; or takes an entry out."""
        where = f"command line: {_short(text)}"
        dotted, equals, value = text.partition("=")
        parts = _clean(dotted, where).strip().split(".")
        if not equals or not all(parts):
            raise AstreaError(f"{where} is not an override", "Write it as dotted.key=value, e.g. train.steps=100.")
        if len(parts) > MAX_DEPTH or len(value) > MAX_BYTES:
            raise _too_large(where)
        holder: Any = self.data
        trail: Trail = ()
        for part in parts[:-1]:
            key = self._step(holder, part, trail, where)
            trail = (*trail, key)
            if _inside(holder, key) is None:
                self._forget(trail, where)
                holder[key] = {}
            holder = holder[key]
        key = self._step(holder, parts[-1], trail, where)
        node = _compose(value, where)
        self._forget((*trail, key), where)
        made = None if node is None else self.build(node, (*trail, key), lambda _: where)
        if made is not None or not _is_entry(model, (*trail, key), self.data):
            holder[key] = made
        elif key in holder:
            del holder[key]
        else:
            what = f"{where}: there is no {_dotted((*trail, key))!r} to take out"
            raise AstreaError(what, f"What is there: {', '.join(holder) or 'nothing'}.")

    def _step(self, holder: Any, part: str, trail: Trail, where: str) -> str | int:
        if isinstance(holder, dict):
            return part
        if isinstance(holder, list) and part in map(str, range(len(holder))):
            return int(part)
        what = f"a list of {len(holder)}" if isinstance(holder, list) else f"a single value ({self.origin(trail)})"
        raise AstreaError(f"{where}: {_dotted(trail)!r} is {what}, it has no {part!r}", "Set it as a whole.")

    def _forget(self, trail: Trail, where: str) -> None:
        for old in [old for old in self.origins if old[: len(trail)] == trail]:
            del self.origins[old]
        self.origins[trail] = where

    def origin(self, trail: Trail) -> str:
        """Where the value came from; for a value that is missing, where the mapping that lacks it did."""
        while trail and trail not in self.origins:
            trail = trail[:-1]
        return self.origins.get(trail, "recipe")


def _check_tag(node: yaml.Node, here: str) -> str:
    name = node.tag.removeprefix(_CORE)
    kind: str = node.id  # type: ignore[attr-defined]
    if name not in {"mapping": "map", "sequence": "seq"}.get(kind, "str int float bool null").split():
        raise AstreaError(f"{here}: the tag {node.tag!r} is not allowed", "Remove the tag; a recipe is plain data.")
    return name


def _clean(text: str, here: str) -> str:
    if any(0xD800 <= ord(c) < 0xE000 for c in text):
        raise AstreaError(f"{here}: {_short(text)} holds half of a character", "Write whole characters.")
    return text


def _scalar(node: yaml.ScalarNode, here: str) -> Any:
    kind, text = _check_tag(node, here), node.value
    try:
        if kind == "null":
            return None
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        if kind == "int":
            if len(text) > MAX_INT_CHARS:
                raise ValueError(text)
            return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))
        if kind == "float":
            return float(re.sub(r"^([-+]?)\.(inf|nan)$", r"\1\2", text.lower()))
    except (KeyError, ValueError):
        raise AstreaError(f"{here}: {_short(text)} is not {_WORDS[f'{kind}_type']}", "Correct the value.") from None
    return _clean(text, here)


def _explain(error: ValidationError, model: type[BaseModel], recipe: _Recipe) -> AstreaError:
    found: dict[Trail, list[Any]] = {}
    for entry in error.errors(include_url=False):
        found.setdefault(_trail(entry, recipe.data), []).append(entry)
    # A union complains once per branch: what is said deepest inside the value is about the branch that was meant.
    outer = {t[:i] for t in found for i in range(len(t))}
    deepest = [t for t in found if t not in outer]
    problems = {t: _problem(t, found[t], model, recipe) for t in deepest[:MAX_PROBLEMS]}
    lines = [f"{recipe.origin(trail)}: {message}" for trail, (message, _) in problems.items()]
    lines += [f"... and {len(deepest) - MAX_PROBLEMS} more"] * (len(deepest) > MAX_PROBLEMS)
    return AstreaError("\n".join(lines), " ".join(dict.fromkeys(mend for _, mend in problems.values())))


def _trail(entry: Any, data: Any) -> Trail:
    """Pydantic's location without the labels of union branches, which are no keys of the data."""
    trail: Trail = ()
    for i, part in enumerate(entry["loc"], start=1):
        if part in data if isinstance(data, dict) else isinstance(data, list) and part in range(len(data)):
            data, trail = data[part], (*trail, part)
        elif entry["type"] == "missing" and i == len(entry["loc"]):
            trail = (*trail, part)
    return trail


def _problem(trail: Trail, entries: list[Any], model: type[BaseModel], recipe: _Recipe) -> tuple[str, str]:
    # One branch of a union forbids the key that another knows: then the other's complaint is the one that helps.
    entries = [entry for entry in entries if entry["type"] != "extra_forbidden"] or entries
    key, kinds, entry = _dotted(trail), {entry["type"] for entry in entries}, entries[0]
    if "extra_forbidden" in kinds:
        keys = [k for m in _models_at(model, trail[:-1], recipe.data) for k in _keys_of(m)]
        near = difflib.get_close_matches(str(trail[-1]), keys, n=1, cutoff=0.5)
        mend = f"Did you mean {_dotted((*trail[:-1], near[0]))!r}?" if near else "Remove it or use a valid key."
        what = "does not go with its neighbours" if trail[-1] in keys else "is not a known key"
        return f"{key!r} {what}; valid keys: {', '.join(dict.fromkeys(keys)) or 'none'}", mend
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
        mend = f"Did you mean {near[0]!r}?" if near else "Use one of these."
        if "discriminator" in ctx:
            key = f"{key}.{ctx['discriminator'].strip(chr(39))}".removeprefix(".")
        return f"{key!r}: expected {expected}, got {_short(value)}", mend
    texts = (_WORDS.get(e["type"], e["msg"].removeprefix("Input should be ")) for e in entries)
    expected = " or ".join(dict.fromkeys(texts))
    return f"{key!r}: expected {expected}, got {_short(value)}", _hint(kinds, value)


_WORDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}


def _hint(kinds: set[str], value: Any) -> str:
    if isinstance(value, float) and "int_type" in kinds and value.is_integer() and abs(value) < 1e15:
        return f"Write {int(value)}."
    if isinstance(value, str) and "bool_type" in kinds and value.lower() in ("on", "off", "yes", "no", "y", "n"):
        return "Write true or false."
    if "string_type" in kinds and isinstance(value, bool | int | float):
        return "Put quotes around it if text is meant."
    return "Correct the value."


def _models_at(annotation: Any, trail: Trail, data: Any) -> Iterator[type[BaseModel]]:
    """The models that could stand at this place; of a tagged union only the one whose tag the data has."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType, Annotated):
        branches = get_args(annotation)
        for branch in [b for b in branches if _tag_fits(b, data)] or branches:
            yield from _models_at(branch, trail, data)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not trail:
            yield annotation
        for name, field in annotation.model_fields.items():
            if trail and trail[0] in (name, field.alias, field.validation_alias):
                yield from _models_at(field.annotation, trail[1:], _inside(data, trail[0]))
    elif origin is not None and trail:
        for argument in get_args(annotation):
            yield from _models_at(argument, trail[1:], _inside(data, trail[0]))


def _is_entry(model: type[BaseModel], trail: Trail, data: Any) -> bool:
    """Whether this is an entry of a mapping of models: one of any number, where null can only mean "not this one"."""
    return (
        isinstance(trail[-1], str)
        and not any(True for _ in _models_at(model, trail[:-1], data))
        and any(True for _ in _models_at(model, trail, data))
    )


def _tag_fits(branch: Any, data: Any) -> bool:
    fields = getattr(branch, "model_fields", {})
    tags = {n: get_args(f.annotation) for n, f in fields.items() if "Literal" in str(get_origin(f.annotation))}
    return any(isinstance(data, dict) and data.get(name) in values for name, values in tags.items())


def _inside(data: Any, part: str | int) -> Any:
    try:
        return data[part]
    except (KeyError, IndexError, TypeError):
        return None


def _keys_of(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _dotted(trail: Trail) -> str:
    return ".".join(str(part) for part in trail)


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
