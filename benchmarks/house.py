"""How easy it is to find one's way in the code, counted: ``python benchmarks/house.py [--checkout before=PATH]``.

Static figures come from the syntax trees of ``src/astrea``: nothing is imported for them, so any checkout can be
measured, also one whose modules had other names. The last figure runs one training step of the recipe ``tiny`` in a
process of its own and counts the lines of every function that it enters.

A *room* is a folder or module directly under ``src/astrea``. An *arrow* leads from a room to another one that it
imports, wherever the import stands, but for ``if TYPE_CHECKING``. Names of modules in strings (entry points, lazy
tables) are no arrows.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "house.json"
PACKAGE = "astrea"
# Ordinary words that the code once used as terms of art, each with a term of the field in its place now.
PRIVATE_WORDS = re.compile(
    r"(?:^|_)("
    r"absent|ahead|apart|believed|complaints|contestant|described|echo|finish|ghost|halfway|hollow|"
    r"honest|hush|hushed|joined|judged|judging|ledger|lent|liar|liars|lies|mend|mended|moved|nobody|"
    r"outline|own_world|parts|picked|recorded|remembered|rowjson|seen_anew|shop|shipped|told|thrift|"
    r"thrifty|trust|wall|warm|warmed|workshop|worth"
    r")(?=_|$)"
)
STEP = ["train", "tiny", "data.train_scenes=64", "align.steps=0", "fuse.steps=0", "tune.steps=1", "tune.batch=4"]
# Runs `astrea train` until the first step of the stage is over; prints each function entered, as file and line.
TRACER = """
import json, os, runpy, sys, threading
root, out = sys.argv[1], sys.argv[2]
entered, state = set(), {"on": False}

def watch(frame, event, argument):
    code = frame.f_code
    if not code.co_filename.startswith(root):
        return
    if event == "call":
        if code.co_name == "run_steps":
            state["on"] = True
        if state["on"]:
            entered.add((code.co_filename[len(root) + 1:], code.co_firstlineno))
    elif event == "return" and code.co_name == "after_step" and frame.f_back.f_code.co_name == "run_steps":
        with open(out, "w") as file:
            json.dump(sorted(entered), file)
        os._exit(0)

threading.setprofile(watch)
sys.setprofile(watch)
sys.argv = ["astrea", *sys.argv[3:]]
runpy.run_module("astrea", run_name="__main__")
"""


@dataclass(frozen=True, slots=True)
class Module:
    """One source file: its dotted name, path below the package, text and syntax tree."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The folder or module directly under the package that it belongs to."""
        return [*self.name.split("."), "__init__"][1]

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Every function and method, also nested ones."""
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def read_modules(package: Path) -> dict[str, Module]:
    """The package's modules by dotted name."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        name = ".".join((PACKAGE, *relative.with_suffix("").parts)).removesuffix(".__init__")
        text = path.read_text(encoding="utf-8")
        modules[name] = Module(name, relative, text, ast.parse(text))
    return modules


def imports(module: Module, known: Mapping[str, Module]) -> Iterator[tuple[str, bool]]:
    """(module imported, whether inside a function) of everything that a module imports from its own package."""

    def visit(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                yield from visit(child, inside)
            return
        if isinstance(node, ast.Import):
            yield from ((alias.name, inside) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module in known:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield (submodule if submodule in known else node.module), inside
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    return visit(module.tree, False)


def circles(arrows: Iterable[tuple[str, str]]) -> list[set[str]]:
    """Sets of nodes that reach each other: the strongly connected components of more than one node."""
    found = networkx.strongly_connected_components(networkx.DiGraph(list(arrows)))
    return [component for component in found if len(component) > 1]


def graph_figures(modules: Mapping[str, Module]) -> dict[str, int]:
    """Rooms, arrows between them, and circles."""
    found = [(name, *row) for name, module in modules.items() for row in imports(module, modules)]
    between = {(modules[a].room, modules[b].room) for a, b, _ in found if modules[a].room != modules[b].room}
    room_of = {room: number for number, circle in enumerate(circles(between)) for room in circle}
    return {
        "rooms": len({module.room for module in modules.values()}),
        "arrows_between_rooms": len(between),
        "arrows_in_circles": sum(a in room_of and room_of.get(a) == room_of.get(b) for a, b in between),
        "module_circles": len(circles((a, b) for a, b, _ in found if a != b)),
        "imports_inside_functions": sum(inside for _, _, inside in found),
    }


def span(node: ast.FunctionDef | ast.AsyncFunctionDef) -> range:
    """Its lines, decorators included."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return range(first, (node.end_lineno or first) + 1)


def size_figures(modules: Mapping[str, Module]) -> dict[str, Any]:
    """Files, lines, the largest of each, and the model's forward."""
    lines = {module.path.as_posix(): len(module.text.splitlines()) for module in modules.values()}
    functions = [(module, node) for module in modules.values() for node in module.functions()]
    longest, node = max(functions, key=lambda pair: len(span(pair[1])))
    forwards = [
        method
        for module in modules.values()
        for cls in ast.walk(module.tree)
        if isinstance(cls, ast.ClassDef) and cls.name in ("AstreaForConditionalGeneration", "AstreaModel")
        for method in cls.body
        if isinstance(method, ast.FunctionDef) and method.name == "forward"
    ]
    largest = max(lines, key=lambda path: lines[path])
    return {
        "files": len(lines),
        "lines": sum(lines.values()),
        "root_files": sum("/" not in path for path in lines),
        "largest_file": {"path": largest, "lines": lines[largest]},
        "largest_function": {"name": f"{longest.path.as_posix()}: {node.name}", "lines": len(span(node))},
        "forward": {
            "lines": max(len(span(method)) for method in forwards),
            "parameters": max(parameters(method) for method in forwards),
        },
    }


def parameters(function: ast.FunctionDef) -> int:
    """How many parameters it has, ``self`` left out."""
    spec = function.args
    starred = (spec.vararg is not None) + (spec.kwarg is not None)
    return len(spec.posonlyargs) + len(spec.args) + len(spec.kwonlyargs) + starred - 1


def word_figures(modules: Mapping[str, Module], checkout: Path) -> dict[str, Any]:
    """Private words in identifiers, glossary terms, and the share of public names with a docstring."""
    names: Counter[str] = Counter()
    documented = []
    for module in modules.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Name | ast.Attribute | ast.arg | ast.FunctionDef | ast.ClassDef):
                names[identifier(node)] += 1
        documented += [ast.get_docstring(node) is not None for node in public(module.tree)]
    pieces: Counter[str] = Counter()
    for name, count in names.items():
        snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        for word in PRIVATE_WORDS.findall(snake):
            pieces[word] += count
    glossary = checkout / "docs" / "glossary.md"
    terms = re.findall(r"^\| \*\*", glossary.read_text(encoding="utf-8"), re.M) if glossary.is_file() else []
    return {
        "glossary_terms": len(terms),
        "private_words": len(pieces),
        "private_word_uses": sum(pieces.values()),
        "documented_public_names": round(sum(documented) / len(documented), 3),
    }


def identifier(node: ast.AST) -> str:
    """The name that a node gives or uses."""
    return next(getattr(node, field) for field in ("id", "attr", "arg", "name") if hasattr(node, field))


def public(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Public classes and functions of a module, and public methods of its public classes."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node)


def step_figures(checkout: Path, modules: Mapping[str, Module]) -> dict[str, int]:
    """Functions that one training step enters, their lines, and the files that they stand in.

    Raises:
        RuntimeError: training ended without a step.
    """
    package = checkout / "src" / PACKAGE
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "entered.json"
        run = subprocess.run(
            [sys.executable, "-c", TRACER, str(package), str(out), *STEP, "--out", f"{folder}/run"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(package.parent), "OMP_NUM_THREADS": "1"},
            check=False,
            capture_output=True,
            text=True,
        )
        if not out.is_file():
            raise RuntimeError(f"no training step was taken; the end of what was said:\n{run.stderr[-2000:]}")
        entered = [tuple(row) for row in json.loads(out.read_text())]
    spans = {
        (module.path.as_posix(), span(node).start): span(node)
        for module in modules.values()
        for node in module.functions()
    }
    followed = {place: spans[place] for place in entered if place in spans}  # without comprehensions and class bodies
    return {
        "functions": len(followed),
        "lines": len({(path, line) for (path, _), lines in followed.items() for line in lines}),
        "files": len({path for path, _ in followed}),
    }


def measure(checkout: Path, *, step: bool = True) -> dict[str, Any]:
    """Every figure of one checkout; ``step=False`` leaves out what has to run code."""
    checkout = checkout.resolve()
    modules = read_modules(checkout / "src" / PACKAGE)
    sizes = size_figures(modules)
    tests = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (checkout / "tests").rglob("*.py"))
    static = {
        **graph_figures(modules),
        **sizes,
        "tests_per_source_line": round(tests / sizes["lines"], 2),
        **word_figures(modules, checkout),
    }
    return static | ({"one_training_step": step_figures(checkout, modules)} if step else {})


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure this checkout and those that are named, print a table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkout", action="append", default=[], metavar="NAME=PATH", help="another tree to measure")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    trees = dict(pair.split("=", 1) for pair in options.checkout)
    results = {name: measure(Path(path)) for name, path in {**trees, "now": str(ROOT)}.items()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for key in results["now"]:
        print(key.ljust(26), *(f"{name}: {json.dumps(figures[key])}" for name, figures in results.items()), sep="  ")
    return results


if __name__ == "__main__":
    main()
