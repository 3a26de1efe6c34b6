"""Runs from the command line: quickstart, train, resume, report, pretrain."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from astrea.evaluation import evaluate
from astrea.training.log import TrainLog
from astrea.world.evaluation.tasks import TASKS
from command_line import refused


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


@pytest.mark.slow
def test_quickstart_twice_and_its_report(astrea, short, tmp_path, few_scenes, monkeypatch):
    folder = tmp_path / ("a long name " * 8 + "[run]")
    result = astrea("quickstart", "--out", folder, *short)
    assert result.code == 0, result.err
    # Paths in one line, to be copied.
    assert f"report:  {folder / 'report.html'}\n" in result.out
    assert f"model:   {folder / 'model'}\n" in result.out
    assert all(task in result.out for task in TASKS)
    wanted = {"recipe.yaml", "train.jsonl", "seconds.json", "results.json", "samples.json", "report.html", "lock"}
    assert wanted | {"model", "samples", "readings", "checkpoints"} == {path.name for path in folder.iterdir()}
    results = json.loads((folder / "results.json").read_text())
    assert tuple(results["tasks"]) == TASKS
    assert (results["strategy"], results["seed"], results["recipe"]) == ("astrea", 0, "tiny")
    assert {"features", "waiting", "align", "fuse", "tune", "evaluate"} == results["seconds"].keys()
    # How sure to be was measured on validation questions, and is kept beside the model.
    assert (folder / "model" / "doubt.safetensors").is_file()
    samples = json.loads((folder / "samples.json").read_text())
    assert len(samples) == 24
    # An album of the bare pictures, for `astrea retrieve`.
    assert sorted(path.name for path in (folder / "samples").iterdir()) == [f"{i:02}.png" for i in range(24)]
    assert all((folder / row["image"]).is_file() and (folder / row["panel"]).is_file() for row in samples)
    assert all(0 < sum(row["shares"].values()) < 1 for row in samples)

    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    assert astrea("report", folder).code == 0
    assert (folder / "report.html").read_bytes() == page

    weights = tensors(folder)
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "evaluate_and_report", lambda *args, **kwargs: pytest.fail("evaluated again"))
        again = astrea("quickstart", "--out", folder, *short)
    assert again.code == 0, again.err
    assert f"{folder}: this run is finished and evaluated" in again.err
    assert again.out == result.out
    evaluated = []
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "evaluate_and_report", lambda *args, **kwargs: evaluated.append(args) or results)
        assert astrea("train", "--resume", folder, "--evaluate").code == 0
        (folder / "results.json").unlink()
        assert astrea("train", "--resume", folder).code == 0
    assert len(evaluated) == 2
    assert all(torch.equal(weights[name], value) for name, value in tensors(folder).items())
    refused(astrea("quickstart", "--out", folder, *short, "seed=5"), "another recipe: seed is 5 here and 0 there")


@pytest.mark.slow
def test_sigint_says_how_to_go_on_and_resume_gives_the_same_bits(astrea, short, tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert astrea("train", "tiny", *short, "--out", whole, "--no-evaluate").code == 0
    with monkeypatch.context() as patch:
        write = TrainLog.write

        def interrupt(self: TrainLog, step: int, record: dict[str, Any]) -> None:
            write(self, step, record)
            if step == 9:
                os.kill(os.getpid(), signal.SIGINT)

        patch.setattr(TrainLog, "write", interrupt)
        result = astrea("train", "tiny", *short, "--out", stopped, "--no-evaluate")
    assert result.code == 130
    assert result.err.splitlines()[-1] == f"stopped at tune, step 2; go on with: astrea train --resume {stopped}"

    # Starting over there is refused, and the run keeps its own recipe.
    recipe = (stopped / "recipe.yaml").read_bytes()
    refused(astrea("train", "tiny", *short, "seed=3", "--out", stopped), stopped, "--resume")
    assert (stopped / "recipe.yaml").read_bytes() == recipe

    resumed = astrea("train", "--resume", stopped, "--no-evaluate")
    assert resumed.code == 0, resumed.err
    assert "resuming from step-00000009" in resumed.err
    assert not (stopped / "results.json").exists()
    mine, other = tensors(stopped), tensors(whole)
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[name], other[name]) for name in other)
    assert (stopped / "train.jsonl").read_bytes() == (whole / "train.jsonl").read_bytes()


def test_an_interrupt_while_evaluating_says_how_to_go_on(astrea, short, tmp_path, monkeypatch):
    def interrupted(*args: Any, **kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    monkeypatch.setattr(evaluate, "evaluate_and_report", interrupted)
    result = astrea("train", "tiny", *short, "tune.steps=0", "fuse.steps=0", "--out", tmp_path / "run")
    assert result.code == 130
    assert f"astrea train --resume {tmp_path / 'run'}" in result.err


def test_no_run_to_go_on_with_or_report(astrea, tmp_path):
    refused(astrea("train", "--resume", tmp_path / "none"), tmp_path / "none", "no run folder")
    refused(astrea("report", tmp_path / "none"), tmp_path / "none")
    (tmp_path / "results.json").write_text("{")
    refused(astrea("report", tmp_path), tmp_path / "results.json")


def test_a_run_folder_that_cannot_be_made(astrea, short, tmp_path):
    (tmp_path / "file").write_text("")
    refused(astrea("train", "tiny", *short, "--out", tmp_path / "file" / "run"), tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fuse: {stepz: 3}", "'fuse.stepz' is not a known key|line 1|Did you mean 'fuse.steps'?"),
        ("name: x\nalign:\n  steps: many", "line 3: 'align.steps': expected a whole number, got 'many'"),
        ("name: x\nllm: {width: 33}", "line 2|a width of 33 is not a multiple"),
        ("name: x\nmodel: {mixer: 1}", "line 2: 'model.mixer': expected true or false"),
        ("name: [", "not valid YAML"),
        ("", "the recipe is empty"),
    ],
)
def test_recipe_mistakes_name_file_line_and_key(astrea, tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    refused(astrea("train", path, "--out", tmp_path / "run"), path, *said.split("|"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tinny"], "Did you mean 'tiny'?"),
        (["tiny", "tune.step=3"], "Did you mean 'tune.steps'?"),
        (["tiny", "tune.steps"], "is not an override"),
        (["tiny", "experts.captioning.kind=magic"], "unknown expert 'magic'"),
        (["tiny", "pretrain=nowhere"], "card.json"),
    ],
)
def test_bad_recipes_on_the_command_line(astrea, tmp_path, arguments, said):
    refused(astrea("train", *arguments, "--out", tmp_path / "run"), said)


# pretrain


def test_pretrain_one_part_and_keep_it(astrea, small_overrides, tmp_path):
    parts = tmp_path / "parts"
    brief = [*small_overrides, "pretraining.expert.steps=2", "pretraining.expert.batch=2"]
    result = astrea("pretrain", "tiny", *brief, "--out", parts, "--only", "detection")
    assert result.code == 0, result.err
    assert {path.name for path in parts.iterdir()} == {"detection.safetensors", "card.json"}
    before = (parts / "detection.safetensors").read_bytes()
    assert astrea("pretrain", "tiny", *brief, "--out", parts, "--only", "detection").code == 0
    other = astrea("pretrain", "tiny", *brief, "pretraining.expert.lr=1e-4", "--out", parts, "--only", "detection")
    refused(other, "detection.safetensors", "other settings")
    assert (parts / "detection.safetensors").read_bytes() == before
    refused(astrea("pretrain", "tiny", *brief, "--out", parts, "--only", "detections"), "unknown part 'detections'")


def test_a_recipe_without_parts_has_none_to_train(astrea, small_overrides, tmp_path):
    elsewhere = ["experts={boxes: {kind: detection, checkpoint: a/folder}}", "llm.checkpoint=a/folder"]
    result = astrea("pretrain", "tiny", *small_overrides, *elsewhere, "--out", tmp_path / "parts")
    refused(result, "uses none of the parts", "--only")
    assert not (tmp_path / "parts").exists()


def test_a_language_model_under_the_gate_never_passes(astrea, small_overrides, tmp_path):
    brief = [*small_overrides, "pretraining.llm.steps=1", "pretraining.llm.batch=2", "pretraining.min_accuracy=0.9"]
    for _ in range(2):  # also when the part is found again
        result = astrea("pretrain", "tiny", *brief, "--out", tmp_path / "parts", "--only", "language")
        refused(result, "the gate is 90%", "language.safetensors")


# The real thing: status and messages of a process of its own


def test_a_real_run_is_stopped_by_ctrl_c(short, tmp_path):
    folder = tmp_path / "run"
    endless = ["tune.steps=1000000", "tune.save_every=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "astrea", "train", "tiny", *short, *endless, "--out", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = folder / "train.jsonl"
    try:
        while process.poll() is None and not (log.exists() and log.read_text().count("\n") > 10):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in out + err
    assert f"go on with: astrea train --resume {folder}" in err
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert (folder / "checkpoints" / f"step-{steps[-1]:08d}" / "manifest.json").is_file()
