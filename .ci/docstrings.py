"""Public names of the package without a docstring: ``python .ci/docstrings.py`` lists them, and fails if there are any.

A method needs none where it overrides one of a class of this package that has one, or where a base class is from
elsewhere (torch, transformers, pydantic) and says what the method is for; nor where the class's own docstring says
"Implements `Protocol`" and that one has it, or lists it as an attribute.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "src" / "astrea"
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(node: ast.Module | ast.ClassDef) -> Iterator[Definition]:
    """Public functions and classes that stand directly in it; setters share their getter's docstring."""
    for child in node.body:
        if not isinstance(child, Definition) or child.name.startswith("_"):
            continue
        if not any(isinstance(d, ast.Attribute) and d.attr in ("setter", "deleter") for d in child.decorator_list):
            yield child


def base_names(cls: ast.ClassDef) -> list[str]:
    """The last part of each base's name, without type arguments; and of the protocol that it says it implements."""
    implemented = re.findall(r"Implements `(?:\w+\.)*(\w+)`", ast.get_docstring(cls) or "")
    plain = (base.value if isinstance(base, ast.Subscript) else base for base in cls.bases)
    return implemented + [
        base.attr if isinstance(base, ast.Attribute) else base.id for base in plain if not isinstance(base, ast.Call)
    ]


def documented_above(cls: ast.ClassDef, method: str, classes: dict[str, ast.ClassDef]) -> bool:
    """Whether the class's own docstring or a base class says what a method is for."""
    if re.search(rf"\b{method}: ", ast.get_docstring(cls) or ""):
        return True
    for name in base_names(cls):
        base = classes.get(name)
        if base is None:
            if name not in ("object", "ABC", "Protocol"):
                return True
            continue
        own = next((child for child in definitions(base) if child.name == method), None)
        if (own is not None and ast.get_docstring(own)) or documented_above(base, method, classes):
            return True
    return False


def missing(package: Path) -> list[str]:
    """``path:line name`` of every module, function, class and method that has no docstring."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(package.rglob("*.py"))}
    classes = {node.name: node for tree in trees.values() for node in tree.body if isinstance(node, ast.ClassDef)}
    found = []
    for path, tree in trees.items():
        if tree.body and not ast.get_docstring(tree):
            found.append(f"{path.relative_to(package)}:1 the module")
        for node in definitions(tree):
            if not ast.get_docstring(node):
                found.append(f"{path.relative_to(package)}:{node.lineno} {node.name}")
            if isinstance(node, ast.ClassDef):
                found += [
                    f"{path.relative_to(package)}:{method.lineno} {node.name}.{method.name}"
                    for method in definitions(node)
                    if not ast.get_docstring(method) and not documented_above(node, method.name, classes)
                ]
    return found


if __name__ == "__main__":
    lines = missing(PACKAGE)
    print(*lines, sep="\n")
    sys.exit(bool(lines))
