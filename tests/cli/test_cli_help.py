"""`astrea --help`, and misuse of every command."""

from __future__ import annotations

import subprocess
import sys

import pytest

import astrea as package
from command_line import Astrea

COMMANDS = (
    *("quickstart", "train", "pretrain", "add-expert", "merge", "estimate", "validate", "evaluate", "arena", "report"),
    *("ask", "index", "retrieve", "benchmark", "scenes", "pack"),
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
    assert "…" not in result.out  # at 80 columns, too, every option can be read
    assert max(map(len, result.out.splitlines())) <= 80


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


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_the_short_option_for_help(astrea: Astrea, command: str):
    words = [command] if command else []
    assert astrea(*words, "-h").out == astrea(*words, "--help").out


def test_the_version(astrea: Astrea):
    assert astrea("--version").out == f"astrea {package.__version__}\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--version"], 0, "astrea "),
        (["--help"], 0, "quickstart"),
        (["train", "-h"], 0, "--resume"),
        (["aks"], 2, "Did you mean 'ask'?"),
        (["ask", "--nonsense"], 2, "No such option"),
        (["train", "--resume", "runs/a", "tiny"], 2, "leave RECIPE"),
    ],
)
def test_the_command_line_speaks_before_it_loads_torch(words: list[str], code: int, said: str):
    # In an interpreter of its own: the one that runs the tests has imported everything. By `python -m astrea`, too.
    run = f"""
import atexit, runpy, sys
atexit.register(lambda: print(sorted({{"torch", "transformers", "numpy"}} & set(sys.modules))))
sys.argv[1:] = {words!r}
runpy.run_module("astrea", run_name="__main__", alter_sys=True)
"""
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_is_offered(astrea: Astrea, shell: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("typer._completion_shared._get_shell_name", lambda: shell, raising=False)
    monkeypatch.setattr("typer.completion._get_shell_name", lambda: shell, raising=False)
    result = astrea("--show-completion")
    assert result.code == 0, result.err
    assert "_ASTREA_COMPLETE" in result.out


def test_completion_completes(astrea: Astrea, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("_ASTREA_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "astrea qui")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert astrea().out.strip() == "quickstart"
