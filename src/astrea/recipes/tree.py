"""A recipe's plain data, and where each value of it was written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from ruamel.yaml.nodes import Node, ScalarNode, SequenceNode

from astrea.common.errors import AstreaError
from astrea.recipes.schema import is_entry, models_at
from astrea.recipes.trail import Trail, dotted, inside, short
from astrea.recipes.yaml import MAX_BYTES, MAX_DEPTH, MAX_NODES, check_tag, clean, compose, kind_of, scalar, too_large


class Tree:
    """Plain data and, for every place in it, the file and line (or the override) that wrote it."""

    def __init__(self) -> None:
        self.data: Any = {}
        self.origins: dict[Trail, str] = {}
        self._visited = 0

    def build(self, node: Node, trail: Trail, at: Callable[[Node], str]) -> Any:
        """Turns a node into data; ``at`` says where a node was written."""
        # Aliases share nodes, so visits are counted, not nodes; the depth stops an alias of itself.
        self._visited += 1
        if self._visited > MAX_NODES or len(trail) >= MAX_DEPTH:
            raise too_large(at(node))
        self.origins.setdefault(trail, at(node))
        if isinstance(node, ScalarNode):
            return scalar(node, at(node))
        check_tag(node, at(node))
        if isinstance(node, SequenceNode):
            return [self.build(item, (*trail, i), at) for i, item in enumerate(node.value)]
        data: dict[str, Any] = {}
        for key_node, value in node.value:
            here = at(key_node)
            if not isinstance(key_node, ScalarNode):
                raise AstreaError(f"{here}: a key is a {kind_of(key_node)}", "Keys are plain words.")
            check_tag(key_node, here)
            key = clean(key_node.value, here)
            inner = (*trail, key)
            if key in data:
                first = self.origins[inner]
                raise AstreaError(f"{here}: {dotted(inner)!r} is written twice (first: {first})", "Keep one of them.")
            self.origins[inner] = here
            data[key] = self.build(value, inner, at)
        return data

    def override(self, text: str, model: type[BaseModel]) -> None:
        """Sets one ``dotted.key=value``, making the mappings on the way that are not there; or takes an entry out."""
        where = f"command line: {short(text)}"
        place, equals, value = text.partition("=")
        parts = clean(place, where).strip().split(".")
        if not equals or not all(parts):
            raise AstreaError(f"{where} is not an override", "Write it as dotted.key=value, e.g. train.steps=100.")
        if len(parts) >= MAX_DEPTH or len(value) > MAX_BYTES:
            raise too_large(where)
        holder: Any = self.data
        trail: Trail = ()
        for part in parts[:-1]:
            key = self._step(holder, part, trail, where)
            trail = (*trail, key)
            if inside(holder, key) is None:
                self._forget(trail, where)
                holder[key] = {}
            holder = holder[key]
        key = self._step(holder, parts[-1], trail, where)
        node = compose(value, where)
        self._forget((*trail, key), where)
        made = None if node is None else self.build(node, (*trail, key), lambda _: where)
        if made is not None or not is_entry(model, (*trail, key), self.data):
            holder[key] = made
        elif key in holder:
            del holder[key]
        else:
            what = f"{where}: there is no {dotted((*trail, key))!r} to take out"
            raise AstreaError(what, f"What is there: {', '.join(holder) or 'nothing'}.")

    def lay_over(self, other: Tree, model: type[BaseModel], trail: Trail = ()) -> None:
        """Put what another tree says on top of this one's: mappings of the configuration key by key, an entry that says
        its ``kind`` and anything else as a whole; ``null`` for an entry takes it out."""
        mine, theirs = at(self.data, trail), at(other.data, trail)
        for key, value in theirs.items():
            inner = (*trail, key)
            entry = is_entry(model, inner, self.data)
            if entry and value is None:
                if key not in mine:
                    where = other.origin(inner)
                    raise AstreaError(f"{where}: there is no {dotted(inner)!r} in the base to take out", "Remove it.")
                self.forget(inner)
            elif isinstance(value, dict) and isinstance(mine.get(key), dict) and not (entry and "kind" in value):
                if any(True for _ in models_at(model, inner, self.data)) or is_entry(model, (*inner, ""), self.data):
                    self.origins[inner] = other.origin(inner)
                    self.lay_over(other, model, inner)
                else:  # plain data, such as options of a constructor
                    self._take(other, inner, mine, key)
            else:
                self._take(other, inner, mine, key)

    def _take(self, other: Tree, trail: Trail, holder: Any, key: str) -> None:
        self._unwritten(trail)
        holder[key] = at(other.data, trail)
        self.origins |= {place: where for place, where in other.origins.items() if place[: len(trail)] == trail}

    def forget(self, trail: Trail) -> None:
        """Take a key of a mapping out, and where it and all below it was written."""
        at(self.data, trail[:-1]).pop(trail[-1], None)
        self._unwritten(trail)

    def _step(self, holder: Any, part: str, trail: Trail, where: str) -> str | int:
        if isinstance(holder, dict):
            return part
        if isinstance(holder, list) and part in map(str, range(len(holder))):
            return int(part)
        what = f"a list of {len(holder)}" if isinstance(holder, list) else f"a single value ({self.origin(trail)})"
        raise AstreaError(f"{where}: {dotted(trail)!r} is {what}, it has no {part!r}", "Set it as a whole.")

    def _forget(self, trail: Trail, where: str) -> None:
        self._unwritten(trail)
        self.origins[trail] = where

    def _unwritten(self, trail: Trail) -> None:
        for old in [old for old in self.origins if old[: len(trail)] == trail]:
            del self.origins[old]

    def origin(self, trail: Trail) -> str:
        """Where the value came from; for a value that is missing, where the mapping that lacks it did."""
        while trail and trail not in self.origins:
            trail = trail[:-1]
        return self.origins.get(trail, "recipe")


def at(data: Any, trail: Trail) -> Any:
    """What stands at a place that is there."""
    for part in trail:
        data = data[part]
    return data


def read_value(text: str, where: str) -> Any:
    """The plain value that a text says in YAML, None where it is empty.

    Raises:
        AstreaError: it is no YAML, or not plain data; with ``where`` it was written.
    """
    node = compose(text, where)
    return None if node is None else Tree().build(node, (), lambda _: where)
