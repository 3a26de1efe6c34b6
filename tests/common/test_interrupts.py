"""Ctrl-C and a request to end are acknowledged at once, once, and by those alone who were asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from astrea.cli.actions import ask, evaluate
from astrea.common.interrupts import interruptions_reported
from astrea.training import trainer as run_module
from astrea.training.stopping import stop_on_signal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("words", [["ask", "red.png", "what is there?"], ["evaluate", "shipped"]])
def test_commands_say_that_they_were_interrupted(astrea, monkeypatch, tmp_path, words, number):
    def load(*args, **options):
        os.kill(os.getpid(), number)
        time.sleep(10)

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "red.png")
    monkeypatch.setattr(ask, "load", load)
    monkeypatch.setattr(evaluate, "load", load)
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    result = astrea(*words)
    assert (result.code, result.out) == (130, "")
    assert result.err.split("\n").count("interrupted") == 1
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_before_a_run_has_begun_there_is_nothing_to_go_on_with(astrea, monkeypatch, tmp_path):
    def assemble(*args, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr(run_module, "process_group", assemble)
    result = astrea("train", "tiny", "--out", tmp_path / "run")
    assert result.code == 130
    assert result.err.split("\n")[-3:] == ["interrupted", "stopped before anything was begun", ""]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_first_moment_too(number):
    # The signal comes while the command line's own modules are imported.
    script = f"""
import os, runpy, sys
class Asks:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Asks())
sys.argv[1:] = ["train", "tiny"]
runpy.run_module("astrea", run_name="__main__", alter_sys=True)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\ninterrupted\n")


def test_a_signal_that_is_ignored_stays_ignored(capfd):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with interruptions_reported():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_ends_as_if_nobody_had_listened(capfd):
    with interruptions_reported():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("tells", [True, False])
def test_training_says_at_once_that_it_will_stop(capfd, tells):
    with stop_on_signal(tells=tells) as stopping:
        assert not stopping()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping()
        said = capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert said == ("\nstopping after this step, with a checkpoint; again to stop at once\n" if tells else "")


def test_the_module_needs_nothing_that_is_slow_to_import():
    source = open(sys.modules["astrea.common.interrupts"].__file__ or "").read()  # noqa: SIM115
    imported = {line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import", "from"))}
    assert imported <= set(sys.stdlib_module_names)
