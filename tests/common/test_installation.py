"""Names, version, and hints for what is not installed."""

from __future__ import annotations

import importlib.metadata
import json
import pydoc
import re
import sys
import tomllib

import pytest

import astrea
from astrea.common import installation
from astrea.common.errors import AstreaError
from astrea.common.installation import DISTRIBUTION, MODULES, import_extra, install_command, require_extra
from repository import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEXTS = [
    *ROOT.glob("*.md"),
    *(path for top in ("src", "docs", "benchmarks") for path in (ROOT / top).rglob("*") if path.is_file()),
]
ENDINGS = {".py", ".md", ".yaml", ".toml", ".sh"}


class Installed:
    """What importlib.metadata says of this package, with files of our own."""

    def __init__(self, **files: str) -> None:
        self.files = files

    def read_text(self, name: str) -> str | None:
        return self.files.get(name.partition(".")[0])


def test_the_name_is_our_own_and_stands_in_every_hint():
    assert PROJECT["name"] == DISTRIBUTION
    assert PROJECT["scripts"] == {"astrea": "astrea.cli:main"}
    found: dict[str, set[str]] = {}
    for path in TEXTS:
        if path.suffix in ENDINGS:
            for name, extra in re.findall(r"\b(astrea[\w-]*)\[(\w+)\]", path.read_text()):
                found.setdefault(extra, set()).add(name)
    assert set(found) <= set(PROJECT["optional-dependencies"])
    assert {"index", "lora", "photo", "lmms", "data"} <= set(found)
    assert set().union(*found.values()) == {DISTRIBUTION}


def test_every_extra_that_the_code_asks_for_is_declared_and_brings_its_modules():
    extras = PROJECT["optional-dependencies"]
    for extra, modules in MODULES.items():
        wanted = {re.split(r"[<>=~! \[]", need)[0] for need in extras[extra]}
        assert {name.replace("_", "-").replace("faiss", "faiss-cpu") for name in modules} <= wanted
    asked = re.compile(r"""(?:require_extra|install_command)\(\s*"(\w+)"|import_extra\(\s*[\w"./]+,\s*"(\w+)\"""")
    sources = [path.read_text() for path in (ROOT / "src").rglob("*.py")]
    named = {first or second for text in sources for first, second in asked.findall(text)}
    assert {"index", "lora", "tensorboard", "data", "lmms"} <= named <= set(extras)


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"INSTALLER": "pip\n"}, 'pip install "astrea-vlm[index]"'),
        ({"INSTALLER": "uv\n"}, 'uv pip install "astrea-vlm[index]"'),
        ({}, 'pip install "astrea-vlm[index]"'),
        (
            {"direct_url": json.dumps({"url": "file:///a%20b/astrea", "dir_info": {"editable": True}})},
            'pip install -e "/a b/astrea[index]"',
        ),
        # A folder that was copied, a wheel, a record that nobody can read: as from an index.
        ({"direct_url": json.dumps({"url": "file:///a/astrea", "dir_info": {}})}, 'pip install "astrea-vlm[index]"'),
        ({"direct_url": json.dumps({"url": "file:///a.whl", "archive_info": {}})}, 'pip install "astrea-vlm[index]"'),
        ({"direct_url": "{"}, 'pip install "astrea-vlm[index]"'),
        ({"direct_url": "[]"}, 'pip install "astrea-vlm[index]"'),
    ],
)
def test_the_hint_fits_how_it_was_installed(monkeypatch, files, command):
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed(**files))
    assert install_command("index") == command


def test_a_source_folder_that_was_never_installed(monkeypatch):
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert install_command("lora") == 'pip install "astrea-vlm[lora]"'


def test_what_is_missing_is_named_without_importing_what_is_there(monkeypatch):
    monkeypatch.setitem(MODULES, "index", ("json", "no_such_library_a", "no_such_library_b"))
    with pytest.raises(AstreaError, match="an index needs the library no_such_library_a and no_such_library_b") as told:
        require_extra("index", "an index", "or do without")
    assert told.value.hint == f"{install_command('index')}; or do without"
    monkeypatch.setitem(MODULES, "index", ("json", "this"))
    require_extra("index", "an index")
    assert "this" not in sys.modules


def test_a_library_that_cannot_be_imported_as_it_is_installed(monkeypatch, tmp_path):
    (tmp_path / "half_installed.py").write_text("import no_such_library_a")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(MODULES, "index", ("half_installed",))
    with pytest.raises(AstreaError, match="half_installed, which cannot be imported: No module named 'no_such_libr"):
        import_extra("half_installed", "index", "an index")


def test_what_the_package_offers():
    assert set(astrea._WHERE) | {"AstreaError", "__version__"} == set(astrea.__all__)
    assert all(getattr(astrea, name) is not None for name in astrea.__all__)
    assert astrea.__version__ == installation.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        astrea.nothing  # noqa: B018


def test_the_help_on_the_package_is_a_page_of_our_own_words():
    page = pydoc.plain(pydoc.render_doc(astrea))
    assert len(page.splitlines()) < 250
    assert all(name in page for name in astrea.__all__)
    assert "register_buffer" not in page
