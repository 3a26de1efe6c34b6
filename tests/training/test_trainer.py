"""A run that is killed, stopped or fails, and is gone on with: it ends with the bits of one that nothing interrupts."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import killed_runs
from astrea.common.errors import AstreaError
from astrea.common.files import sha256_file
from astrea.common.progress import Reporter
from astrea.model.components import save_component
from astrea.model.loading import load_model
from astrea.recipes.loader import dump_recipe, load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training import checkpoint, stage_runner
from astrea.training import trainer as run_module
from astrea.training.assembly import assemble
from astrea.training.log import TrainLog
from astrea.training.stages.instruct import InstructObjective
from astrea.training.stopping import Interrupted
from astrea.training.trainer import train
from astrea.world.pretrain import write_card
from listening import Said

CHANGES = [
    "experts={captioning: {kind: captioning}, detection: {kind: detection, options: {threshold: 0.02}}}",
    *("align.steps=6", "fuse.steps=2", "fuse.accumulate=2", "tune.steps=4"),
]
STEPS = 12
STAGES = ["align/captioning", "align/detection", "align/joint", "fuse", "tune"]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked runs")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs lie side by side; they share ``runs/cache``."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def recipe(small_recipe: Path, runs: Path) -> Path:
    """With two experts, and two micro-steps per step of `fuse`."""
    path = runs / "recipe.yaml"
    path.write_text(dump_recipe(load_recipe(Recipe, str(small_recipe), CHANGES)))
    return path


@pytest.fixture(scope="module")
def run(recipe: Path) -> Recipe:
    made = load_recipe(Recipe, str(recipe))
    assert (made.fuse.accumulate, made.tune.accumulate, made.align.accumulate) == (2, 1, 1)
    return made


@pytest.fixture(scope="module")
def whole(run: Recipe, runs: Path) -> Path:
    """The run that nothing interrupts."""
    train(run, runs / "whole", report=Reporter())
    return runs / "whole"


@pytest.fixture(scope="module")
def killed(recipe: Path, runs: Path, whole: Path) -> dict[str, Path]:
    """A run for each moment of `killed_runs.POINTS`, killed there."""
    done = subprocess.run(
        [sys.executable, killed_runs.__file__, str(recipe), str(runs)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout.splitlines()[-1])
    assert ends == dict.fromkeys(killed_runs.POINTS, signal.SIGKILL)
    return {name: runs / str(number) for number, name in enumerate(ends)}


@pytest.fixture(scope="module")
def stopped(run: Recipe, runs: Path, whole: Path) -> Path:
    """The run stopped by SIGINT in step 11. Tests work on copies."""
    with pytest.MonkeyPatch.context() as patch:
        signal_at(patch, 11)
        with pytest.raises(Interrupted):
            train(run, runs / "stopped", report=Reporter())
    return runs / "stopped"


def signal_at(patch: pytest.MonkeyPatch, step: int, number: int = signal.SIGINT) -> None:
    """Send this process a signal in mid-step."""
    write = TrainLog.write

    def wrapped(self: TrainLog, at: int, record: dict[str, Any]) -> None:
        write(self, at, record)
        if at == step:
            os.kill(os.getpid(), number)

    patch.setattr(TrainLog, "write", wrapped)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def same_run(one: Path, other: Path) -> None:
    """Bit-equal weights, and the same log with every step once."""
    mine, theirs = tensors(one), tensors(other)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert [row["step"] for row in rows(one)] == list(range(1, STEPS + 1))
    assert rows(one) == rows(other)


def fingerprint(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def steps_kept(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*"))


# The whole run


def test_a_run_leaves_a_model_a_log_and_its_times(whole: Path, run: Recipe):
    model, processor = load_model(whole / "model")
    assert model.experts.names == list(run.experts)
    assert processor.num_visual_tokens == model.num_visual_tokens
    logged = rows(whole)
    assert [row["step"] for row in logged] == list(range(1, STEPS + 1))
    assert list(dict.fromkeys(row["stage"] for row in logged)) == STAGES
    for row in logged:
        losses = {
            "align": {"itc", "word"},
            "fuse": {"lm", "itc", "contribution"},
            "tune": {"lm", "itc", "contribution"},
        }
        assert losses[row["stage"].split("/")[0]] <= row.keys()
        assert row["grad_norm"] > 0
        assert row["lr"] > 0
    assert "agree" not in logged[0]  # the first expert has nobody to agree with
    assert "agree" in logged[2]
    seconds = json.loads((whole / "seconds.json").read_text())
    assert seconds.keys() == {"features", "waiting", "align", "fuse", "tune"}
    assert all(value >= 0 for value in seconds.values())
    assert json.loads((whole / "model" / "recipe.json").read_text())["name"] == "tiny"
    assert steps_kept(whole) == [10, 12]


# Killed, stopped, torn


@pytest.mark.slow
@pytest.mark.parametrize("moment", killed_runs.POINTS)
def test_a_killed_run_goes_on_to_the_same_bits(killed, moment, run, whole):
    folder = killed[moment]
    assert not (folder / "seconds.json").exists()
    said = Said()
    train(run, folder, resume=True, report=said)
    assert ("resuming from step-" in said.text) == (moment != "before the first save")
    same_run(folder, whole)
    # Nothing half-written stays behind.
    assert [p.name for p in (folder / "checkpoints").iterdir() if ".tmp-" in p.name or ".old-" in p.name] == []


@pytest.mark.parametrize(
    ("step", "number"), [(3, signal.SIGINT), (7, signal.SIGTERM), (8, signal.SIGINT), (12, signal.SIGINT)]
)
def test_a_signal_saves_and_says_how_to_go_on(run, runs, whole, monkeypatch, step, number):
    folder = runs / f"signal {number.name} {step}"
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        signal_at(patch, step, number)
        with pytest.raises(Interrupted, match=f"astrea train --resume '{folder}'"):
            train(run, folder, report=Reporter())
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert steps_kept(folder)[-1] == step
    assert not (folder / "model").exists()
    said = Said()
    train(run, folder, resume=True, report=said)
    assert f"resuming from step-{step:08d}" in said.text
    same_run(folder, whole)


def test_a_second_signal_stops_at_once(run, runs, monkeypatch):
    before = signal.getsignal(signal.SIGINT)  # which a process in the background may have been told to ignore
    with monkeypatch.context() as patch:
        signal_at(patch, 1)
        follow = stage_runner.save_checkpoint

        def again(*args: Any, **kwargs: Any) -> Path:
            os.kill(os.getpid(), signal.SIGINT)
            return follow(*args, **kwargs)

        patch.setattr(stage_runner, "save_checkpoint", again)
        with pytest.raises(KeyboardInterrupt):
            train(run, runs / "twice", report=Reporter())
    assert signal.getsignal(signal.SIGINT) is before


def test_a_finished_run_goes_on_to_itself(run, runs, whole):
    folder = runs / "finished"
    shutil.copytree(whole, folder)
    (folder / "model" / "model.safetensors").unlink()
    train(run, folder, resume=True, report=Reporter())
    same_run(folder, whole)


def test_resuming_nothing_starts_at_the_beginning(run, runs, whole):
    train(run, runs / "nothing", resume=True, report=Reporter())
    same_run(runs / "nothing", whole)


@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
def test_a_corrupt_checkpoint_is_passed_over_aloud(run, runs, whole, stopped, name):
    folder = runs / f"corrupt-{name}"
    shutil.copytree(stopped, folder)
    assert steps_kept(folder) == [10, 11]
    spoilt = folder / "checkpoints" / "step-00000011" / name
    data = bytearray(spoilt.read_bytes())
    data[len(data) // 2] ^= 1
    spoilt.write_bytes(data)
    said = Said()
    train(run, folder, resume=True, report=said)
    assert "step-00000011 is corrupt and passed over" in said.lines[0]
    assert name in said.lines[0]
    assert "resuming from step-00000010" in said.text
    same_run(folder, whole)


def test_with_every_checkpoint_corrupt_nothing_is_overwritten(run, runs, stopped):
    folder = runs / "all-corrupt"
    shutil.copytree(stopped, folder)
    for path in (folder / "checkpoints").glob("step-*"):
        (path / "model.safetensors").write_bytes(b"")
    before = fingerprint(folder)
    with pytest.raises(AstreaError, match="none of its 2 checkpoints is valid"):
        train(run, folder, resume=True, report=Reporter())
    assert fingerprint(folder) == before


def test_another_recipe_is_refused(recipe, runs, stopped):
    folder = runs / "other-recipe"
    shutil.copytree(stopped, folder)
    before = fingerprint(folder)
    with pytest.raises(AstreaError, match=r"another recipe: tune.lr is 0.5 here and 0.0005 there"):
        train(load_recipe(Recipe, str(recipe), ["tune.lr=0.5"]), folder, resume=True, report=Reporter())
    assert fingerprint(folder) == before


def test_starting_over_in_a_run_folder_is_refused(run, runs, stopped):
    folder = runs / "again"
    shutil.copytree(stopped, folder)
    before = fingerprint(folder)
    with pytest.raises(AstreaError, match="already holds a run's checkpoints") as caught:
        train(run, folder, report=Reporter())
    assert "--resume" in caught.value.hint
    assert fingerprint(folder) == before


def test_other_experts_are_refused(recipe, runs, tmp_path, monkeypatch):
    parts = tmp_path / "parts"
    shutil.copytree(load_recipe(Recipe, str(recipe)).pretrain, parts)
    loaded = load_recipe(Recipe, str(recipe), [f"pretrain={parts}"])
    with monkeypatch.context() as patch:
        signal_at(patch, 3)
        with pytest.raises(Interrupted):
            train(loaded, runs / "other-experts", report=Reporter())
    expert = assemble(loaded, parts)[0].experts["detection"]
    with torch.no_grad():
        expert.head.bias.add_(1)
    save_component(expert, parts / "detection.safetensors")
    write_card(loaded, parts, judged=0)
    with pytest.raises(AstreaError, match="other experts"):
        train(loaded, runs / "other-experts", resume=True, report=Reporter())


# A disk that is full, a folder that cannot be written


def full(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_fills_up_in_a_save_loses_nothing(run, runs, whole, monkeypatch):
    folder = runs / "full"
    write, left = checkpoint._write_tensors, [5 * 3]

    def until_full(path: Path, named: dict[str, torch.Tensor]) -> None:
        left[0] -= 1
        write(path, named) if left[0] else full()

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write_tensors", until_full)
        with pytest.raises(AstreaError, match="no space left") as caught:
            train(run, folder, report=Reporter())
    assert str(folder) in caught.value.message
    assert caught.value.hint
    assert steps_kept(folder) == [2, 4]
    train(run, folder, resume=True, report=Reporter())
    same_run(folder, whole)


def test_a_disk_too_full_for_the_model_loses_nothing(run, runs, whole, monkeypatch):
    folder = runs / "full-model"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "model")
    write = run_module.write_model

    def with_little_space(*args: Any) -> None:
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, old[1]))
        try:
            write(*args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "write_model", with_little_space)
        with pytest.raises(AstreaError, match="no space left") as caught:
            train(run, folder, resume=True, report=Reporter())
    assert str(folder / "model") in caught.value.message
    train(run, folder, resume=True, report=Reporter())
    same_run(folder, whole)


def test_the_same_recipe_gives_the_same_bits_and_a_cache_that_cannot_be_written_is_only_told(
    run, runs, whole, tmp_path
):
    (tmp_path / "file").write_text("")
    said = Said()
    train(run, runs / "no-cache", cache=tmp_path / "file", report=said)
    assert said.text.count("could not be cached") == 2  # experts; more captions than align looks at are not kept
    same_run(runs / "no-cache", whole)


@pytest.mark.parametrize("broken", ["folder", "log"])
def test_a_file_in_the_way_is_an_error_that_names_it(run, tmp_path, runs, broken):
    folder = tmp_path / "run"
    if broken == "folder":
        folder.write_text("")
    else:
        (folder / "train.jsonl").mkdir(parents=True)
    with pytest.raises(AstreaError) as caught:
        train(run, folder, cache=runs / "cache", report=Reporter())
    assert str(folder) in caught.value.message
    assert caught.value.hint


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_folder_is_an_error_that_names_it(run, tmp_path, runs):
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(0o500)
    with pytest.raises(AstreaError, match="permission denied") as caught:
        train(run, folder, cache=runs / "cache", report=Reporter())
    assert str(folder) in caught.value.message


# A loss that is no number


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_save(run, runs, whole, monkeypatch):
    folder = runs / "nan"
    with monkeypatch.context() as patch:
        real = InstructObjective.loss

        def spoilt(self: Any, batch: Any, step: int) -> Any:
            loss, figures = real(self, batch, step)
            return (loss * float("nan") if self.name == "tune" and step == 3 else loss), figures

        patch.setattr(InstructObjective, "loss", spoilt)
        with pytest.raises(AstreaError, match=r"the loss is nan at step 3.*train scene \d"):
            train(run, folder, report=Reporter())
    assert steps_kept(folder)[-1] == 10
    train(run, folder, resume=True, report=Reporter())
    same_run(folder, whole)
