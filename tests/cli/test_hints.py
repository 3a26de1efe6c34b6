"""Whatever command line a message, a help text or a page names can be typed: command, sub-command and options exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from astrea.cli.lazy import Listed
from astrea.cli.table import COMMANDS as TABLE
from repository import ROOT

COMMANDS = {command.name: Listed(command).loaded() for command in TABLE if command.renamed is None}
NAMED = re.compile(r"(?<![\w./-])astrea ([a-z]+(?:-[a-z]+)*)((?:[ \t]+[^\s`\"';()|<]+)*)")
PROSE = {"and", "import", "can", "runs", "took", "in"}
"""Words after "astrea" where it names a strategy or the package itself, not the command."""


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """The texts in a source file; what is put into one when it runs stands there as PLACE."""
    tree = ast.parse(path.read_text())
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else "PLACE" for part in node.values]
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


def named(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    """(where, command, words after it) of every command line in a file."""
    texts = strings(path) if path.suffix == ".py" else enumerate(path.read_text().splitlines(), start=1)
    for line, text in texts:
        text = re.sub(r"\{\{.*?\}\}", "PLACE", text)  # of a template
        for found in NAMED.finditer(text):
            yield f"{path.relative_to(ROOT)}:{line}", found[1], found[2].split()


def options(command: Any) -> set[str]:
    return {"--help", "-h", *(name for each in command.params for name in (*each.opts, *each.secondary_opts))}


def wrong(command: str, words: list[str]) -> str | None:
    """What of a command line does not exist."""
    found = COMMANDS.get(command)
    if found is None:
        return None if command in PROSE else f"no command {command!r}"
    if hasattr(found, "commands"):
        sub = words[0].rstrip(".,:") if words else ""
        if sub not in found.commands:
            return f"no command '{command} {sub}'"
        found = found.commands[sub].loaded()
    for word in words:
        option = re.match(r"--[a-z][a-z-]*", word)
        if option and option[0] not in options(found):
            return f"{command} has no option {option[0]}"
    return None


def files(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


@pytest.mark.parametrize("patterns", [("src/**/*.py", "src/**/*.yaml"), ("README.md", "docs/*.md", "docs/**/*.py")])
def test_every_command_line_that_is_named_exists(patterns: tuple[str, ...]):
    lines = [(*each, path) for path in files(*patterns) if path.name != "lab-notes.md" for each in named(path)]
    faults = [f"{where}: {fault}" for where, command, words, _ in lines if (fault := wrong(command, words))]
    assert faults == []
    assert len(lines) > 40


def test_the_check_finds_what_does_not_exist():
    assert wrong("trian", []) == "no command 'trian'"
    assert wrong("train", ["tiny", "--resum", "RUN"]) == "train has no option --resum"
    assert wrong("recipe", ["shwo", "tiny"]) == "no command 'recipe shwo'"
    assert wrong("train", ["--resume", "RUN)", "--no-evaluate."]) is None


def test_messages_name_the_options_of_the_command_line():
    """What is written for Python is written for the command line, too, which is where most messages are read."""
    for path in files("src/**/*.py"):
        for line, text in strings(path):
            if "trust_remote_code=True" in text and "``" not in text:
                assert "--trust-remote-code" in text, f"{path}:{line}"
