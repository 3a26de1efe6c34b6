"""The small, safe part of YAML that recipes are written in, read into nodes and plain scalars.

Plain mappings, lists and scalars of YAML 1.2 (``1e-3`` is a number, ``on`` and ``yes`` are text, ``010`` is ten),
anchors within a size cap, no other tags, ``<<`` merges nothing.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from astrea.common.errors import AstreaError
from astrea.recipes.trail import WORDS, short

MAX_BYTES = 1 << 20
MAX_NODES = 10_000
MAX_DEPTH = 64
MAX_INT_CHARS = 400  # Python refuses to print integers of more than some 4,300 digits

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

    yaml_implicit_resolvers: dict[str, Any] = {}
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


class Dumper(yaml.SafeDumper):
    """Quotes exactly what ``_Loader`` would otherwise read as something other than text."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.Node:
        # PyYAML leaves these line breaks bare in other quotes, where reading folds them into spaces.
        return self.represent_scalar(_CORE + "str", text, style='"' if re.search("[\x85\u2028\u2029]", text) else None)


Dumper.add_representer(str, Dumper.represent_text)
for _name, _pattern, _first in _RESOLVERS:
    for _class in (_Loader, Dumper):
        _class.add_implicit_resolver(_CORE + _name, re.compile(_pattern), list(_first))


def compose(text: str, where: str) -> yaml.Node | None:
    """The nodes of a text, None where it is empty. Raises AstreaError, with its place and line, if it is no YAML."""
    try:
        return _Loader(text).get_single_node()
    except RecursionError:
        raise too_large(where) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise AstreaError(f"{where}{line}: not valid YAML: {error.problem}", "Correct the syntax there.") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        line = f", line {text.count(chr(10), 0, error.position) + 1}" if hasattr(error, "position") else ""
        reason = " ".join(str(error).split())
        raise AstreaError(f"{where}{line}: not valid YAML: {reason}", "Remove or correct the character.") from None


def too_large(where: str) -> AstreaError:
    """What is said of a text with more values or a greater depth than any honest one has."""
    return AstreaError(
        f"{where}: more than {MAX_NODES:,} values (aliases counted each time) or nested deeper than {MAX_DEPTH}",
        "Write the recipe without repeated aliases and deep nesting.",
    )


def check_tag(node: yaml.Node, here: str) -> str:
    """The short name of a node's tag. Raises AstreaError if it is none of plain data."""
    name = node.tag.removeprefix(_CORE)
    kind: str = node.id  # type: ignore[attr-defined]
    if name not in {"mapping": "map", "sequence": "seq"}.get(kind, "str int float bool null").split():
        raise AstreaError(f"{here}: the tag {node.tag!r} is not allowed", "Remove the tag; a recipe is plain data.")
    return name


def clean(text: str, here: str) -> str:
    """The same text. Raises AstreaError if it cannot be written as UTF-8."""
    if any(0xD800 <= ord(c) < 0xE000 for c in text):
        raise AstreaError(f"{here}: {short(text)} holds half of a character", "Write whole characters.")
    return text


def scalar(node: yaml.ScalarNode, here: str) -> Any:
    """The value of a scalar. Raises AstreaError if it is none of its tag's."""
    kind, text = check_tag(node, here), node.value
    try:
        if kind == "null":
            return None
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        if kind == "int":
            if len(text) > MAX_INT_CHARS:
                raise ValueError(text)
            number = int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))
            if abs(number) >= 10 ** (MAX_INT_CHARS - 1):  # written in hex: in decimal digits it is too long to be read
                raise ValueError(text)
            return number
        if kind == "float":
            return float(re.sub(r"^([-+]?)\.(inf|nan)$", r"\1\2", text.lower()))
    except (KeyError, ValueError):
        raise AstreaError(f"{here}: {short(text)} is not {WORDS[f'{kind}_type']}", "Correct the value.") from None
    return clean(text, here)
