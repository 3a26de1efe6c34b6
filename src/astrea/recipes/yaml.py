"""The small, safe part of YAML that recipes are written in: ruamel.yaml, held to plain data and to a size.

Plain mappings, lists and scalars of YAML 1.2 (``1e-3`` is a number, ``on`` and ``yes`` are text, ``010`` is ten),
anchors within a size cap, no other tags, ``<<`` merges nothing.
"""

from __future__ import annotations

import re
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import Node, ScalarNode
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.resolver import BaseResolver

from astrea.common.errors import AstreaError
from astrea.recipes.trail import WORDS, short

MAX_BYTES = 1 << 20
MAX_NODES = 10_000
MAX_DEPTH = 64
MAX_INT_CHARS = 400  # Python refuses to print integers of more than some 4,300 digits

_CORE = "tag:yaml.org,2002:"


class _CoreResolver(BaseResolver):
    """The core schema of YAML 1.2, whatever a %YAML line says, and underscores between digits.

    ruamel's own resolver adds dates, ``0b1``, merge keys and ``=``: all of these are text here.
    """

    def __init__(self, version: Any = None, loader: Any = None, loadumper: Any = None) -> None:
        super().__init__(loader or loadumper)

    @property
    def processing_version(self) -> tuple[int, int]:
        return (1, 2)


for _name, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^(?:[-+]?[0-9]+(?:_[0-9]+)*|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
):
    _CoreResolver.add_implicit_resolver_base(_CORE + _name, re.compile(_pattern), list(_first))


class _BoundedComposer(Composer):
    """A cap on nodes and depth, which holds while the tree is built, so that a bomb costs nothing."""

    nodes = nesting = 0

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader)
        self.warn_double_anchors = False

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.nodes += 1
        self.nesting += 1
        if self.nodes > MAX_NODES or self.nesting > MAX_DEPTH:
            raise RecursionError
        try:
            return super().compose_node(parent, index)
        finally:
            self.nesting -= 1


class _PlainRepresenter(SafeRepresenter):
    """Every value written out where it stands, in the order given."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> Any:
        # Bare in other quotes, these line breaks are folded into spaces when they are read.
        return self.represent_scalar(_CORE + "str", data, style='"' if re.search("[\x85\u2028\u2029]", data) else None)


_PlainRepresenter.add_representer(str, _PlainRepresenter.represent_str)


def _yaml() -> Any:
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.Resolver, yaml.Composer, yaml.Representer = _CoreResolver, _BoundedComposer, _PlainRepresenter
    yaml.default_flow_style, yaml.sort_base_mapping_type_on_output, yaml.width = False, False, 10**6
    return yaml


_CONSTRUCTOR = _yaml().constructor


def compose(text: str, where: str) -> Node | None:
    """The nodes of a text, None where it is empty. Raises AstreaError, with its place and line, if it is no YAML."""
    try:
        root: Node | None = _yaml().compose(text)
    except RecursionError:
        raise too_large(where) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise AstreaError(f"{where}{line}: not valid YAML: {error.problem}", "Correct the syntax there.") from None
    except Exception as error:  # whatever odd text makes the parser raise: AssertionError for %YAML 1.3
        line = f", line {text.count(chr(10), 0, error.position) + 1}" if hasattr(error, "position") else ""
        reason = " ".join(str(error).split())
        raise AstreaError(f"{where}{line}: not valid YAML: {reason}", "Remove or correct the character.") from None
    return root


def write(data: Any) -> str:
    """Plain data as YAML that reads back to the same: text is quoted exactly where it would be read as something else.

    data: nested dicts, lists, text, numbers, booleans and None.
    """
    stream = StringIO()
    _yaml().dump(data, stream)
    return stream.getvalue()


def too_large(where: str) -> AstreaError:
    """What is said of a text with more values or a greater depth than any honest one has."""
    return AstreaError(
        f"{where}: more than {MAX_NODES:,} values (aliases counted each time) or nested deeper than {MAX_DEPTH}",
        "Write the recipe without repeated aliases and deep nesting.",
    )


def kind_of(node: Any) -> str:
    """What a node is: mapping, sequence or scalar."""
    return str(node.id)


def check_tag(node: Node, here: str) -> str:
    """The short name of a node's tag. Raises AstreaError if it is none of plain data."""
    tag = str(node.tag)
    name = tag.removeprefix(_CORE)
    if name not in {"mapping": "map", "sequence": "seq"}.get(kind_of(node), "str int float bool null").split():
        raise AstreaError(f"{here}: the tag {tag!r} is not allowed", "Remove the tag; a recipe is plain data.")
    return name


def clean(text: str, here: str) -> str:
    """The same text. Raises AstreaError if it cannot be written as UTF-8."""
    if any(0xD800 <= ord(c) < 0xE000 for c in text):
        raise AstreaError(f"{here}: {short(text)} holds half of a character", "Write whole characters.")
    return text


def scalar(node: ScalarNode, here: str) -> Any:
    """The value of a scalar. Raises AstreaError if it is none of its tag's."""
    kind, text = check_tag(node, here), node.value
    if kind == "str":
        return clean(text, here)
    try:
        if kind == "int" and len(text) > MAX_INT_CHARS:
            raise ValueError(text)
        value = getattr(_CONSTRUCTOR, f"construct_yaml_{kind}")(node)
        if kind == "int" and abs(value) >= 10 ** (MAX_INT_CHARS - 1):  # short in hex, too long to be read in decimal
            raise ValueError(text)
    except (LookupError, ValueError):
        raise AstreaError(f"{here}: {short(text)} is not {WORDS[f'{kind}_type']}", "Correct the value.") from None
    return value
