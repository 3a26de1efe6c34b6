"""The table of commands, and what listing them imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from astrea.cli.lazy import Listed
from astrea.cli.table import COMMANDS, Command
from astrea.common.lazy import load_object
from command_line import Astrea

HEAVY = {"torch", "transformers", "numpy", "pandas", "matplotlib", "astrea.training", "astrea.lab.arena"}


def leaves(commands: tuple[Command, ...], *words: str) -> Iterator[tuple[str, Command]]:
    """Every command that is no group, with the words that call it."""
    for command in commands:
        called = (*words, command.name)
        if isinstance(command.target, tuple):
            yield from leaves(command.target, *called)
        else:
            yield " ".join(called), command


LEAVES = dict(leaves(COMMANDS))
GROUPS = [command.name for command in COMMANDS if isinstance(command.target, tuple)]


@pytest.mark.parametrize("words", LEAVES)
def test_the_table_has_the_first_line_of_each_docstring(words: str):
    command = LEAVES[words]
    assert isinstance(command.target, str)
    assert (load_object(command.target).__doc__ or "").split("\n")[0] == command.help


@pytest.mark.parametrize("words", LEAVES)
def test_a_listed_command_is_loaded_under_its_name(words: str):
    command = LEAVES[words]
    if command.renamed is None:
        assert Listed(command).loaded().name == command.name


def test_a_command_with_a_new_name_says_so_and_stays_out_of_the_list(astrea: Astrea):
    assert " join " not in astrea("--help").out
    result = astrea("join", "--help")
    assert result.code == 0
    assert "note: astrea join is now called astrea add-expert" in result.err
    assert "--expert" in result.out


def modules_after(code: str) -> set[str]:
    """The modules of a fresh interpreter that has run some lines. Leaving by `SystemExit` is no failure."""
    run = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint()\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import astrea",
        "import astrea; dir(astrea); astrea.AstreaError; astrea.example_picture()",
        "import astrea.cli; sys.argv = ['astrea', '--help']; astrea.cli.main()",
        "import astrea.cli; sys.argv = ['astrea', '--version']; astrea.cli.main()",
    ],
)
def test_a_word_about_itself_costs_no_torch(code: str):
    assert not (HEAVY | {"ruamel.yaml", "pydantic"}) & modules_after(code)


def test_no_help_of_a_command_costs_torch():
    """One interpreter for all of them: none may import what the others must not."""
    lines = [[*words.split(), "--help"] for words in [*GROUPS, *LEAVES]]
    code = f"""
import contextlib, io, sys
import astrea.cli
for words in {lines!r}:
    sys.argv = ["astrea", *words]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as said:
        astrea.cli.main()
    assert "Usage" in said.getvalue(), words
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (HEAVY | {"ruamel.yaml"}) & set(done.stdout.split())


@pytest.mark.parametrize("words", [["show", "tiny"], ["new", "mine.yaml", "--data", "train.jsonl"]])
def test_recipes_are_shown_and_written_without_torch(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    loaded = modules_after(f"import astrea.cli; sys.argv = {['astrea', 'recipe', *words]!r}; astrea.cli.main()")
    assert "astrea.recipes.recipe" in loaded
    assert not HEAVY & loaded


def test_ask_imports_only_what_an_answer_needs():
    said = "['astrea', 'ask', 'example', 'what colour is the cat?']"
    loaded = modules_after(f"import astrea.cli; sys.argv = {said}; astrea.cli.main()")
    assert "astrea.model.modeling" in loaded
    needed = {"common", "cli", "model", "experts", "alignment", "fusion", "language", "confidence", "data", "world"}
    rooms = {name.split(".")[1] for name in loaded if name.startswith("astrea.")}
    assert rooms == needed
    drawn = {name.removeprefix("astrea.world.").split(".")[0] for name in loaded if name.startswith("astrea.world.")}
    assert drawn == {"bundled", "experts", "scenes"}  # what the model of the package is made of, and its example
    assert not {"pandas", "matplotlib", "ruamel.yaml", "cachetools", "sqlite3", "pyarrow"} & loaded
