"""What README and docs name exists: modules, files, and what their Python examples import."""

from __future__ import annotations

import ast
import importlib
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from repository import ROOT

# Lab notes are history: they name what was there when they were written.
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [page for page in PAGES if page.name != "lab-notes.md"]


def imported(page: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of everything that a page's Python blocks import from astrea."""
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        for node in ast.walk(ast.parse(textwrap.dedent(block))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "astrea":
                yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_import_what_there_is(page):
    for module, name in imported(page):
        assert hasattr(importlib.import_module(module), name), f"{page.name}: {module} has no {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_source_files_that_are_named_exist(page):
    roots = (ROOT, ROOT / "src" / "astrea", ROOT / "docs")
    for path in re.findall(r"`((?:[\w-]+/)+[\w-]+\.(?:py|yaml|md|json))`", page.read_text()):
        if path.startswith(("runs/", "model/", "samples/")) or page.name == "public-tasks.md":
            continue  # what a command writes, or official files
        assert any((root / path).exists() for root in roots), f"{page.name}: {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#|data:)([^)#\s]+)", page.read_text()):
        if not target.startswith("api/"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_navigation():
    listed = sorted(re.findall(r"^ +- (\S+\.(?:md|ipynb))$", (ROOT / "mkdocs.yml").read_text(), re.M))
    there = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    there |= {page.name for page in (ROOT / "docs").glob("*.ipynb")}
    assert listed == sorted(there | {"index.md"})
