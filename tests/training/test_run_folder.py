"""A run's folder: one at a time, nothing left behind by a start that fails."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from astrea.common.errors import AstreaError
from astrea.common.folder_lock import LOCK
from astrea.common.progress import Reporter
from astrea.evaluation.evaluate import evaluate_and_report
from astrea.recipes.recipe import Recipe
from astrea.training.distributed import Distributed
from astrea.training.run_folder import is_begun, locked_folder
from astrea.training.stage_runner import StageRunner
from astrea.training.trainer import train
from listening import Said

HOLD = """
import sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire(timeout=0)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def run(make_run) -> Recipe:
    return make_run()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_run_in_the_same_process_is_refused(run, tmp_path, resume):
    folder = tmp_path / "run"
    with locked_folder(folder, report=Reporter()):
        before = names(folder)
        with pytest.raises(AstreaError, match=f"{folder}: another run is at work") as caught:
            train(run, folder, resume=resume, report=Reporter())
        with pytest.raises(AstreaError, match="another run is at work"):
            evaluate_and_report(run, folder, report=Reporter())
        assert names(folder) == before
    assert "choose another folder" in caught.value.hint


class Ranks(Distributed):
    """One of two processes; the other one's word is given."""

    def __init__(self, rank: int, leader_says: int) -> None:
        super().__init__(rank, 2)
        self.leader_says = leader_says

    def from_leader(self, number: int) -> int:
        return number if self.is_main else self.leader_says


def test_of_several_processes_the_leader_locks_and_the_others_follow(tmp_path):
    folder = tmp_path / "run"
    with locked_folder(folder, ranks=Ranks(0, 1), report=Reporter()):
        with locked_folder(folder, ranks=Ranks(1, 1), report=Reporter()):
            pass
        for rank in (0, 1):
            with (
                pytest.raises(AstreaError, match="another run is at work"),
                locked_folder(folder, ranks=Ranks(rank, 0), report=Reporter()),
            ):
                pytest.fail("went on")
        assert names(folder) == {LOCK}


def test_a_run_of_another_process_is_refused_until_that_process_is_killed(run, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(folder / LOCK)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(AstreaError, match="another run is at work"):
            train(run, folder, report=Reporter())
        other.send_signal(signal.SIGKILL)
        other.wait()
        with locked_folder(folder, report=Reporter()):  # its lock is still there, and no obstacle
            assert names(folder) == {LOCK}
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


@pytest.mark.parametrize("there", [False, True])
def test_a_run_that_fails_at_its_start_leaves_nothing(run, tmp_path, there):
    folder = tmp_path / "run"
    if there:
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    bad = run.model_copy(update={"pretrain": str(tmp_path / "nowhere")})
    with pytest.raises(AstreaError, match="nowhere"):
        train(bad, folder, report=Reporter())
    assert folder.exists() == there
    assert not there or names(folder) == {"notes.txt"}


def test_a_run_that_fails_later_keeps_what_it_has(make_run, tmp_path, monkeypatch):
    run = make_run(model__pretrained_llm=False, data__train_scenes=8)

    def fails(*given, **options):
        (tmp_path / "run" / "checkpoints" / "step-00000001").mkdir(parents=True)
        raise AstreaError("the disk is full")

    monkeypatch.setattr(StageRunner, "run_stage", fails)
    with pytest.raises(AstreaError, match="the disk is full"):
        train(run, tmp_path / "run", report=Reporter())
    assert names(tmp_path / "run") == {LOCK, "recipe.yaml", "train.jsonl", "checkpoints"}
    assert is_begun(tmp_path / "run")


def test_a_disk_without_locks_is_told(tmp_path, monkeypatch):
    def unsupported(self, *args, **options):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(FileLock, "acquire", unsupported)
    said = Said()
    with locked_folder(tmp_path / "run", report=said):
        pass
    where = tmp_path / "run" / LOCK
    assert said.lines == [f"{where}: this disk knows no locks; see to it that one run alone writes there"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_something_else_in_the_place_of_the_lock(tmp_path, kind):
    folder = tmp_path / "run"
    folder.mkdir()
    if kind == "folder":
        (folder / LOCK).mkdir()
    elif kind == "pipe":
        os.mkfifo(folder / LOCK)
    else:
        (folder / LOCK).symlink_to(tmp_path / "elsewhere")
    try:
        with locked_folder(folder, report=Reporter()):
            pass
    except AstreaError as error:
        assert str(folder) in error.message  # noqa: PT017 - a pipe may serve as a lock, or be refused
    assert not (tmp_path / "elsewhere").exists() or kind != "link"


def test_a_folder_that_is_given_away_holds_no_lock(tmp_path):
    with locked_folder(tmp_path / "model", report=Reporter(), leaves_lock=False):
        assert names(tmp_path / "model") == {LOCK}
    assert names(tmp_path / "model") == set()
    shutil.rmtree(tmp_path / "model")
