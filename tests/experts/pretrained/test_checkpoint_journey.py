"""From checkpoints on a disk to an answer, through the command line: align, fuse, tune, evaluate, ask, move, resume."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from astrea.cli import app
from astrea.data.images import load_image
from astrea.model.explanation import explain
from astrea.model.folders.processor import read_processor
from astrea.model.loading import load_model
from astrea.recipes.saved import read_recipe
from astrea.training import trainer as training
from astrea.training.assembly import assemble
from astrea.training.log import TrainLog
from astrea.world.evaluation.tasks import TASKS
from astrea.world.scenes.draw import split_scene
from expert_builders import PHRASES
from few_scenes import limit_scenes
from journeys import CANVAS, asked, checkpoints, command, recipe

EXPERTS = {"caption": "blip", "scene": "siglip2", "regions": "segformer", "boxes": "rt_detr_v2"}
LOW_RANK = "  low_rank: {rank: 2}"
QUESTION = "how many suns are there?"
ALIGN, FUSE, TUNE = 5, 2, 2
"""Optimizer steps; those of align are one per expert and one together."""


class Journey(NamedTuple):
    """A finished run. sources: the folder of all checkpoints. logits: of the model as it was when training ended."""

    sources: Path
    recipe: Path
    run: Path
    picture: Path
    logits: Tensor

    @property
    def model(self) -> Path:
        return self.run / "model"


@pytest.fixture(scope="module", autouse=True)
def own_threads() -> Iterator[None]:
    """Training sets the number of threads of the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def a_picture(folder: Path) -> Path:
    """One that has nothing of the size that any expert wants."""
    path = folder / "picture.png"
    Image.fromarray(split_scene("test", 0, 0, canvas=160).image).crop((0, 0, 150, 101)).save(path)
    return path


@torch.no_grad()
def logits_of(model: Any, folder: Path, picture: Path) -> Tensor:
    """The whole model on one picture and a question, with the processor of a model folder."""
    processor = read_processor(folder)
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    text = processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    return model(**processor(images=[load_image(picture)], text=[text])).logits


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    """`astrea train` with one checkpoint of each kind, evaluation and report included."""
    folder = tmp_path_factory.mktemp("journey")
    sources, path, run, picture = folder / "sources", folder / "journey.yaml", folder / "run", a_picture(folder)
    checkpoints(EXPERTS, "llama", sources)
    path.write_text(recipe(EXPERTS, sources, more=LOW_RANK, steps=FUSE))
    ended: list[Any] = []
    write = training.write_model

    def keep(ctx: Any, where: Path) -> None:
        write(ctx, where)
        ended.append(logits_of(ctx.model, where, picture))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "write_model", keep)
        limit_scenes(patch, judged=5)
        said = command("train", path, "--out", run)
    assert str(run / "model") in said.output
    return Journey(sources, path, run, picture, ended[0])


@pytest.fixture
def gone(journey: Journey, tmp_path: Path) -> Iterator[Path]:
    """The model folder in another place, while no checkpoint is where it was."""
    away, hidden = tmp_path / "another place" / "model", journey.sources.with_name("hidden")
    shutil.copytree(journey.model, away)
    journey.sources.rename(hidden)
    yield away
    hidden.rename(journey.sources)


def stages_of(run: Path) -> list[str]:
    """The stage of every step of a run, whose figures are all finite and whose gradients are not nothing."""
    rows = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    assert all(value is not None for row in rows for value in row.values())
    assert all(row["grad_norm"] > 0 for row in rows)
    return [row["stage"] for row in rows]


def test_every_stage_ran_and_taught_what_it_should(journey: Journey):
    phases = [f"align/{name}" for name in (*EXPERTS, "joint")]
    assert stages_of(journey.run) == [*phases, *["fuse"] * FUSE, *["tune"] * TUNE]
    start = {
        name.replace(".base_layer", ""): t
        for name, t in assemble(read_recipe(journey.run), None)[0].state_dict().items()
    }
    end = load_file(journey.model / "model.safetensors")
    moved = {name for name, tensor in end.items() if not torch.equal(tensor, start[name])}
    for name in EXPERTS:
        assert any(tensor.startswith(f"model.alignment.adapters.{name}.") for tensor in moved)
    assert any(name.startswith("model.fusion.") for name in moved)
    # Low-rank tuning, merged: no weight of its own, the words stay.
    assert any(name.startswith("model.language_model.layers.") for name in moved)
    assert "model.language_model.embed_tokens.weight" not in moved
    assert not any("lora" in name for name in end)
    assert not any(name.startswith("model.experts.") for name in moved)


def test_what_the_language_model_still_says_is_noted(journey: Journey):
    kept = json.loads((journey.run / "language.json").read_text())
    assert kept["assembled"]["equal"]
    assert not kept["trained"]["equal"]
    assert kept["trained"]["surprise_before"] == kept["assembled"]["surprise_before"]


def test_the_run_was_evaluated_and_reported(journey: Journey):
    results = json.loads((journey.run / "results.json").read_text())
    assert tuple(results["tasks"]) == TASKS
    assert set(results["masking"]) == set(results["load"]["mean"]) == set(EXPERTS)
    assert results["experts"] == {}  # the world has no metric for other networks
    page = (journey.run / "report.html").read_text()
    assert all(name in page for name in EXPERTS)


def test_evaluate_takes_the_models_own_world(journey: Journey, gone: Path, monkeypatch: pytest.MonkeyPatch):
    limit_scenes(monkeypatch, judged=5)
    tasks = ("counting", "caption", "retrieval_i2t")
    result = json.loads(command("evaluate", gone, "--tasks", ",".join(tasks), "--json").stdout)
    before = json.loads((journey.run / "results.json").read_text())
    assert result["tasks"] == {task: before["tasks"][task] for task in tasks}


def test_ask_tells_what_each_expert_saw(gone: Path, journey: Journey, tmp_path: Path):
    result = asked(gone, journey.picture, QUESTION, "--show", tmp_path / "readings.png")
    readings = result["readings"]
    assert list(readings) == list(result["shares"]) == list(result["masking"]) == list(EXPERTS)
    assert 0 < sum(result["shares"].values()) < 1
    assert 0 <= result["confidence"] <= 1
    assert readings["caption"]["caption"]
    assert readings["scene"]["labels"]
    assert set(readings["scene"]["labels"]) <= set(PHRASES)
    for name in ("regions", "boxes"):
        assert len(readings[name]["boxes"]) == len(readings[name]["labels"]) == len(readings[name]["scores"]) > 0
        assert all(0 <= side <= 1 for box in readings[name]["boxes"] for side in box)
    assert "traffic light" in {*readings["regions"]["labels"], *readings["boxes"]["labels"]}
    with Image.open(tmp_path / "readings.png") as drawn:
        assert min(drawn.size) > CANVAS
    why = explain(*load_model(gone), journey.picture, QUESTION, masking=False)
    assert why.answer == result["answer"]


def test_a_moved_folder_is_the_model_that_was_trained(gone: Path, journey: Journey):
    model, _ = load_model(gone)
    torch.testing.assert_close(logits_of(model, gone, journey.picture), journey.logits, atol=1e-4, rtol=1e-4)
    assert journey.logits.std() > 0.05
    blank = gone.parent / "blank.png"
    Image.new("RGB", (60, 60)).save(blank)
    assert (logits_of(model, gone, blank) - journey.logits).abs().max() > 1e-3  # through what the experts see


def test_only_the_recipe_says_where_the_checkpoints_were(journey: Journey):
    naming = [path.name for path in journey.model.iterdir() if str(journey.sources).encode() in path.read_bytes()]
    assert naming == ["recipe.json"]


def test_interrupted_after_fuse_and_resumed_it_is_the_same_run(journey: Journey, tmp_path: Path, monkeypatch):
    again = tmp_path / "again"
    cache = journey.run.parent / "cache"
    shutil.copytree(cache, tmp_path / "cache")
    write = TrainLog.write

    def interrupt(self: TrainLog, step: int, record: dict[str, Any]) -> None:
        write(self, step, record)
        if step == ALIGN + FUSE:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(TrainLog, "write", interrupt)
        stopped = CliRunner().invoke(app, ["train", str(journey.recipe), "--out", str(again), "--no-evaluate"])
    assert stopped.exit_code == 130
    assert f"stopped after fuse; go on with: astrea train --resume {again}" in stopped.output
    assert not (again / "model").exists()
    assert f"resuming from step-{ALIGN + FUSE:08d}" in command("train", "--resume", again, "--no-evaluate").output
    mine, other = (load_file(run / "model" / "model.safetensors") for run in (again, journey.run))
    assert mine.keys() == other.keys()
    assert [name for name in other if not torch.equal(mine[name], other[name])] == []
    assert (again / "train.jsonl").read_bytes() == (journey.run / "train.jsonl").read_bytes()


# Others of each kind: one step per stage, and an answer

OTHERS: dict[str, tuple[dict[str, str], str, str]] = {
    # name: (experts, family of the language model, more of `language`)
    "gemma3": ({"scene": "clip", "caption": "git", "regions": "mask2former", "boxes": "detr"}, "gemma3", ""),
    "mistral in half precision": (
        {"caption": "florence2", "scene": "convnextv2", "regions": "eomt", "boxes": "yolos"},
        "mistral",
        "  dtype: bfloat16",
    ),
    "gpt2": ({"things": "grounding_dino", "cells": "sam", "tags": "vit", "caption": "blip"}, "gpt2", ""),
    "phi3": (
        {"tags": "siglip", "cells": "dinov3", "features": "dinov2", "boxes": "d_fine", "more": "rt_detr"},
        "phi3",
        LOW_RANK,
    ),
}
HALF = {"regions": "bfloat16", "caption": "float16"}


@pytest.mark.parametrize("case", OTHERS)
def test_other_members_of_each_kind(case: str, tmp_path: Path):
    experts, family, more = OTHERS[case]
    sources, run, picture = tmp_path / "sources", tmp_path / "run", a_picture(tmp_path)
    made = checkpoints(experts, family, sources)
    (tmp_path / "mine.yaml").write_text(recipe(experts, sources, more=more, dtypes=HALF if "half" in case else {}))
    command("train", tmp_path / "mine.yaml", "--out", run, "--no-evaluate")
    assert stages_of(run) == [*(f"align/{name}" for name in (*experts, "joint")), "fuse", "tune"]
    shutil.rmtree(made["language"].parent)
    result = asked(run / "model", picture, QUESTION)
    assert list(result["readings"]) == list(result["shares"]) == list(experts)
    assert 0 < sum(result["shares"].values()) < 1
    for name, reading in result["readings"].items():
        if "boxes" in name or name == "more":
            assert reading["boxes"]
        if experts[name] == "grounding_dino":
            assert set(reading["labels"]) <= set(PHRASES)
