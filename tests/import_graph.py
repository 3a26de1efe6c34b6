"""Which module of the package imports which, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from repository import ROOT

SOURCE = ROOT / "src"


@dataclass(frozen=True, slots=True)
class Import:
    """``module`` imports ``target``, in line ``line``; ``inside``: the function in which it does, or None."""

    module: str
    target: str
    line: int
    inside: str | None


@cache
def modules() -> dict[str, Path]:
    """Every module's file, by dotted name; a package goes by its own."""
    names = {path: ".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in SOURCE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


@cache
def tree_of(name: str) -> ast.Module:
    """A module's syntax tree."""
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


@cache
def imports() -> tuple[Import, ...]:
    """Every import in the package but those for annotations alone (under ``TYPE_CHECKING``)."""
    return tuple(found for name in sorted(modules()) for found in _imports_in(name, tree_of(name), None))


def _imports_in(module: str, node: ast.AST, inside: str | None) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (Import(module, alias.name, child.lineno, inside) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{module} imports by a relative name"
            for alias in child.names:
                whole = f"{child.module}.{alias.name}"
                yield Import(module, whole if whole in modules() else str(child.module), child.lineno, inside)
        else:
            function = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else inside
            yield from _imports_in(module, child, function)


def room_of(name: str) -> str:
    """The folder of the package that a module lies in; ``""`` for the package itself and its root files."""
    parts = name.split(".")
    return parts[1] if len(parts) > 2 or (len(parts) == 2 and modules()[name].name == "__init__.py") else ""


def find_cycle(arrows: set[tuple[str, str]]) -> list[str]:
    """One circle among arrows (from, to), as the names along it; [] if there is none."""
    graph: dict[str, set[str]] = {}
    for start, end in arrows:
        graph.setdefault(start, set()).add(end)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []
