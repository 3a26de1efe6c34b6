"""Files about the project say what the project is: versions, commands and names in them exist."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from repository import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
PACKAGE_HOST = re.compile(
    rb"\b(?:pypi|pythonhosted|anaconda|npmjs)\.(?:org|com|io)\b|\bdownload\.\w+\.(?:org|com)\b"
    rb"|(?:index[-_]url|find[-_]links)[ =:\"']+https?://",
    re.IGNORECASE,
)


def ci_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"ci_{name}", ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_public_name_has_a_docstring():
    docstrings = ci_script("docstrings")
    assert docstrings.missing(docstrings.PACKAGE) == []


def test_a_missing_docstring_is_found_where_none_is_inherited(tmp_path):
    (tmp_path / "one.py").write_text(
        '"""Module."""\nfrom torch import nn\n\n'
        "def bare(): ...\n\n"
        'class Base:\n    """Class."""\n    def told(self):\n        """Says."""\n    def untold(self): ...\n\n'
        'class Child(Base):\n    """Class."""\n    def told(self): ...\n'
        "    def own(self): ...\n    def _hidden(self): ...\n\n"
        'class Like:\n    """Implements `one.Base`.\n\n    size: how large."""\n'
        "    def told(self): ...\n    def size(self): ...\n\n"
        'class Net(nn.Module):\n    """Class."""\n    def forward(self): ...\n'
    )
    (tmp_path / "two.py").write_text("x = 1\n")
    found = ci_script("docstrings").missing(tmp_path)
    assert found == ["one.py:4 bare", "one.py:10 Base.untold", "one.py:15 Child.own", "two.py:1 the module"]


@pytest.mark.parametrize("file", ["CONTRIBUTING.md", ".ci/run", ".github/workflows/ci.yml", "README.md"])
def test_every_make_target_that_is_named_exists(file):
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
    text = (ROOT / file).read_text()
    named = set(re.findall(r"(?:^|`|run: )make ([a-z-]+)", text, re.M))
    if file.endswith(".yml"):
        named |= set(yaml.safe_load(text)["jobs"]["make"]["strategy"]["matrix"]["target"])
    assert named
    assert named <= targets


def test_the_image_is_made_of_the_python_and_torch_that_the_makefile_uses():
    image = (ROOT / "Dockerfile").read_text()
    torch = re.search(r"torch==[0-9.]+", MAKEFILE)
    assert torch is not None
    assert torch[0] in image
    assert torch[0] in (ROOT / "constraints.txt").read_text().splitlines()
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert f"FROM python:{lowest}-" in image
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", image, re.M) for name in line.split()]
    assert all((ROOT / name).exists() for name in copied)


def checked_out() -> Iterator[Path]:
    """Every file of the repository that is no output: what .gitignore names is left out, by the name alone."""
    outputs = [".git", *((ROOT / ".gitignore").read_text().split())]
    for folder, folders, files in os.walk(ROOT):
        own = [name for name in (*folders, *files) if not any(fnmatch(name, line.rstrip("/")) for line in outputs)]
        folders[:] = [name for name in folders if name in own]
        yield from (Path(folder, name) for name in files if name in own)


def test_no_line_names_a_host_of_packages_since_that_is_for_the_user_to_choose():
    named = [
        f"{path.relative_to(ROOT)}: {found[0].decode()}"
        for path in checked_out()
        if (found := PACKAGE_HOST.search(path.read_bytes()))
    ]
    assert named == []


@pytest.mark.parametrize(
    "line",
    [
        " ".join(("pip install torch", "--index" + "-url", "https://example.org/whl/cpu")),
        "PIP_EXTRA_INDEX_URL: " + "https://example.org/simple",
        "see " + ".".join(("download", "pytorch", "org")),
        "from " + ".".join(("files", "pythonhosted", "org")),
    ],
)
def test_a_host_of_packages_is_recognised(line):
    assert PACKAGE_HOST.search(line.encode())


def test_every_library_of_an_extra_has_a_pinned_version_if_tests_or_documentation_need_it():
    pinned = {normal(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().split()}
    extras = PROJECT["optional-dependencies"]
    wanted = [re.split(r"[\[>=<]", line)[0] for line in (*PROJECT["dependencies"], *extras["dev"], *extras["docs"])]
    assert {normal(name) for name in wanted} <= pinned


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.lower())


def test_the_glossary_is_short_and_every_term_has_a_source():
    text = (ROOT / "docs" / "glossary.md").read_text()
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| **")]
    assert 10 <= len(rows) <= 25
    for term, meaning, where, source in rows:
        assert meaning.strip(), term
        assert re.search(r"arXiv:\d{4}\.\d{4,5}|\d{4}|\]\(", source), f"{term} has no source"
        for path in re.findall(r"`([a-z_/]+(?:\.py|/))`", where):
            assert (ROOT / "src" / "astrea" / path).exists(), f"{term}: no {path}"


def test_the_paper_that_is_cited_is_the_one_that_the_readme_names():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["license"] == PROJECT["license"]
    assert cited["authors"] == [{"name": author["name"]} for author in PROJECT["authors"]]
    number = re.search(r"arXiv (\d{4}\.\d{5})", (ROOT / "README.md").read_text())
    assert number is not None
    assert number[1] in cited["references"][0]["url"]
    assert number[1] in PROJECT["urls"]["Paper"]


def test_modules_that_the_reference_shows_exist():
    shown = [
        name
        for page in sorted((ROOT / "docs" / "api").glob("*.md"))
        for name in re.findall(r"^::: (\S+)", page.read_text(), re.M)
    ]
    assert "astrea" in shown
    for name in shown:
        path = ROOT / "src" / name.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        assert ast.get_docstring(ast.parse(file.read_text())), name
