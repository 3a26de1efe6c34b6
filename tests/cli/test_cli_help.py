"""`astrea --help`, and misuse of every command."""

from __future__ import annotations

import pytest

from command_line import Astrea

COMMANDS = (
    *("quickstart", "train", "pretrain", "join", "merge", "estimate", "validate", "evaluate", "arena", "report"),
    *("ask", "index", "retrieve", "scenes", "pack"),
)


def test_help_names_every_command(astrea: Astrea):
    result = astrea("--help")
    assert result.code == 0
    assert all(f" {name} " in result.out for name in COMMANDS)
    assert "astrea quickstart" in result.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(astrea: Astrea, command: str):
    result = astrea(command, "--help")
    assert result.code == 0
    assert f"Usage: astrea {command}" in result.out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["ask"],
        ["ask", "model"],
        ["ask", "model", "image", "question", "--nonsense"],
        ["retrieve", "model", "folder", "text", "--top", "0"],
        ["scenes", "--count", "many"],
        ["scenes", "--canvas", "4"],
        ["train"],
        ["train", "--resume", "run", "tiny"],
        ["train", "--resume", "run", "--out", "other"],
        ["report"],
    ],
)
def test_misuse_has_status_2(astrea: Astrea, arguments: list[str]):
    result = astrea(*arguments)
    assert result.code == 2
    assert "Usage: astrea" in result.out + result.err
