"""Distilling the experts into one student: what learns from what, and a run whose only expert is that student."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file

from astrea.common.errors import AstreaError
from astrea.common.files import sha256_file
from astrea.common.progress import Reporter
from astrea.experts.protocol import ExpertFeatures
from astrea.model.components import load_component, save_component
from astrea.model.explanation import explain
from astrea.model.loading import load_model
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe, Schedule
from astrea.training.loop import build_optimizer, run_steps
from astrea.training.partial_checkpoint import PartialCheckpoint
from astrea.training.stopping import Interrupted
from astrea.training.trainer import train
from astrea.world import distill
from astrea.world.dataset import WorldData
from astrea.world.distill import AdaptorHead, DistillObjective, spread
from astrea.world.experts.student import StudentExpert
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.scene import Scene
from listening import Said

COUNT = 16


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [split_scene("train", index, 0) for index in range(COUNT)]


@pytest.fixture
def objective(scenes: list[Scene], world_data: WorldData) -> DistillObjective:
    """Faultless teachers of sixteen scenes."""
    torch.manual_seed(0)
    return DistillObjective(StudentExpert(), world_data.rows(torch.arange(COUNT)), scenes, seed=0)


# What learns from what


def test_targets_are_standardised_over_the_filled_slots_only():
    tokens = torch.randn(50, 4, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([2.0, 5.0, 0.0]) + 1
    confidence = (torch.arange(200).view(50, 4) % 3 > 0).float()
    tokens[confidence == 0] = float("nan")
    mean, deviation = spread(ExpertFeatures(tokens, confidence))
    filled = tokens[confidence > 0]
    torch.testing.assert_close(mean, filled.mean(0))
    torch.testing.assert_close(deviation[:2], filled.std(0, unbiased=False)[:2])
    assert deviation[2] == 1  # does not vary: nothing to divide by


def test_a_teacher_that_never_says_anything_teaches_that():
    mean, deviation = spread(ExpertFeatures(torch.full((5, 2, 3), float("nan")), torch.zeros(5, 2)))
    assert mean.tolist() == [0, 0, 0]
    assert deviation.tolist() == [1, 1, 1]


def test_a_head_says_a_token_per_slot_and_whether_it_is_filled():
    tokens, logits = AdaptorHead(96, 5, 17)(torch.randn(2, 28, 96))
    assert tokens.shape == (2, 5, 17)
    assert logits.shape == (2, 5)


def test_the_loss_falls_on_pictures_that_come_again(objective, monkeypatch):
    batch = torch.arange(8)
    monkeypatch.setattr(objective, "batch", lambda *args: batch)
    seen: list[dict[str, float]] = []
    schedule = Schedule(steps=15, batch=8, lr=3e-3, warmup=1)
    optimizer = build_optimizer(objective, schedule)
    run_steps(objective, schedule, optimizer, on_step=lambda step, figures: seen.append(figures))
    for name in ("loss", *objective.teachers):
        assert seen[-1][name] < 0.8 * seen[0][name], name


def test_gradients_reach_all_of_the_student_and_the_heads_and_nothing_else_learns(objective):
    names = {name for name, _, _ in objective.trainable()}
    assert {name.split(".")[0] for name in names} == {"student", "heads"}
    assert {name.removeprefix("student.") for name in names if name.startswith("student.")} == {
        name for name, _ in objective.student.named_parameters()
    }
    loss, _ = objective.loss(objective.batch(0, 0, 8), 0)
    loss.backward()
    deaf = [n for n, p, _ in objective.trainable() if p.grad is None or not p.grad.abs().sum() > 0]
    assert deaf == []
    assert not any(part.tokens.requires_grad for part in objective.teachers.values())


def test_all_teachers_weigh_alike(objective):
    loss, parts = objective.loss(objective.batch(0, 0, 8), 0)
    assert set(parts) == {"captioning", "classification", "segmentation", "detection"}
    assert loss.item() == pytest.approx(sum(parts.values()) / 4, rel=1e-5)


def test_a_louder_teacher_teaches_the_same(scenes, world_data):
    found = []
    for gain in (1.0, 100.0):
        part = world_data.features["detection"].rows(torch.arange(COUNT))
        torch.manual_seed(0)
        loud = DistillObjective(StudentExpert(), {"one": replace(part, tokens=part.tokens * gain)}, scenes, seed=0)
        found.append(loud.loss(torch.arange(8), 0)[0].item())
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_what_an_empty_slot_holds_is_never_touched(scenes, world_data):
    part = world_data.features["detection"].rows(torch.arange(COUNT))
    empty = part.confidence == 0
    assert empty.any()
    found = []
    for nothing in (0.0, float("nan")):
        torch.manual_seed(0)
        tokens = part.tokens.masked_fill(empty.unsqueeze(-1), nothing)
        objective = DistillObjective(StudentExpert(), {"one": replace(part, tokens=tokens)}, scenes, seed=0)
        loss, _ = objective.loss(torch.arange(8), 0)
        loss.backward()
        found.append((loss.item(), objective.student.place.grad.sum().item()))
    assert found[0] == found[1]
    assert all(map(torch.isfinite, torch.tensor(found[0])))


# The recipe


def test_recipes_that_cannot_teach_are_refused(make_run):
    student = {"student": {"kind": "student"}}
    with pytest.raises(ValidationError, match="nobody teaches"):
        make_run(experts=student)
    with pytest.raises(ValidationError, match="none of the experts"):
        make_run(distill={"teachers": {"detection": {"kind": "detection"}}})
    with pytest.raises(ValidationError, match="nobody teaches"):
        make_run(experts=student, distill={"teachers": {"other": {"kind": "student"}}})
    with pytest.raises(ValidationError, match="at least 1"):
        make_run(experts=student, distill={"teachers": {}})


# A whole run


@pytest.fixture(scope="module")
def run(small_overrides: list[str]) -> Recipe:
    teachers = "{captioning: {kind: captioning}, detection: {kind: detection, options: {threshold: 0.02}}}"
    return load_recipe(
        Recipe,
        "tiny",
        [
            *small_overrides,
            "experts={student: {kind: student}}",
            f"distill={{teachers: {teachers}, steps: 3, batch: 8, warmup: 1}}",
            "align.steps=2",
            "fuse.steps=2",
            "tune.steps=2",
        ],
    )


@pytest.fixture(scope="module")
def whole(run: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(run, folder, report=Reporter())
    return folder


def taught(folder: Path) -> dict[str, torch.Tensor]:
    """The student in a run's model."""
    prefix = "model.experts.experts.student."
    whole = load_file(folder / "model" / "model.safetensors")
    return {name.removeprefix(prefix): value for name, value in whole.items() if name.startswith(prefix)}


def never(*args: object) -> None:
    raise AssertionError("taught again")


def test_the_students_weights_are_the_models_and_not_what_it_started_with(whole, run):
    kept = load_file(whole / "student" / "student.safetensors")
    mine = taught(whole)
    assert mine.keys() == kept.keys()
    assert all(torch.equal(mine[name], kept[name].to(mine[name].dtype)) for name in mine)
    assert mine["trunk.stem.1.1.num_batches_tracked"] == 3
    assert not any("heads" in name for name in kept)
    card = json.loads((whole / "student" / "card.json").read_text())
    assert set(card["loss"]) == {"loss", "captioning", "detection"}
    seconds = json.loads((whole / "seconds.json").read_text())
    assert seconds["distill"] == pytest.approx(card["seconds"], abs=0.01)
    assert seconds["distill"] > 0


def test_the_model_loads_and_answers_with_its_one_expert(whole):
    model, processor = load_model(whole / "model")
    assert model.experts.names == ["student"]
    assert model.num_visual_tokens == processor.num_visual_tokens == 28
    picture = Image.fromarray(split_scene("test", 0, 0).image)
    why = explain(model, processor, picture, "what colour is the sun?")
    assert list(why.shares) == ["student"]
    assert 0 < why.shares["student"] < 1
    assert why.readings["student"].mask is not None


def test_resuming_does_not_teach_again(run, whole, tmp_path, monkeypatch):
    folder = tmp_path / "again"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "model")
    monkeypatch.setattr(distill, "fit", never)
    train(run, folder, resume=True, cache=whole.parent / "cache", report=Reporter())
    assert all(torch.equal(value, taught(whole)[name]) for name, value in taught(folder).items())


def test_a_run_killed_right_after_teaching_comes_to_the_same_bits(run, whole, tmp_path, monkeypatch):
    folder = tmp_path / "killed"
    shutil.copytree(whole / "student", folder / "student")
    monkeypatch.setattr(distill, "fit", never)
    train(run, folder, resume=True, cache=whole.parent / "cache", report=Reporter())
    mine, theirs = (load_file(path / "model" / "model.safetensors") for path in (folder, whole))
    assert [name for name in theirs if not torch.equal(mine[name], theirs[name])] == []


# Stopped


def interrupt(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ctrl-C while the loss of a step is computed."""
    loss = DistillObjective.loss

    def signalling(self: DistillObjective, batch: torch.Tensor, at: int) -> object:
        if at == step:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(self, batch, at)

    monkeypatch.setattr(DistillObjective, "loss", signalling)


def stop(recipe: Recipe, whole: Path, folder: Path, step: int) -> str:
    """Train until Ctrl-C in a step of the teaching; what is said then."""
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, step)
        with pytest.raises(Interrupted) as caught:
            train(recipe, folder, cache=whole.parent / "cache", report=Reporter())
    assert not (folder / "model").exists()
    return str(caught.value)


def test_stopped_while_it_is_taught_it_goes_on_to_the_same_bits(run, whole, tmp_path):
    folder = tmp_path / "stopped"
    said = stop(run, whole, folder, 1)
    assert said == f"stopped at distill, step 2; go on with: astrea train --resume {folder}"
    assert not (folder / "student" / "student.safetensors").exists()
    heard = Said()
    train(run, folder, resume=True, cache=whole.parent / "cache", report=heard)
    assert "teaching goes on from step 2" in heard.lines
    student = Path("student", "student.safetensors")
    assert (folder / student).read_bytes() == (whole / student).read_bytes()
    assert not (folder / "student" / "partial").exists()
    mine, theirs = (json.loads((path / "student" / "card.json").read_text()) for path in (folder, whole))
    assert mine["loss"] == theirs["loss"]
    assert mine["seconds"] > 0


def test_stopped_in_the_last_step_the_student_is_whole(run, whole, tmp_path, monkeypatch):
    folder = tmp_path / "stopped"
    assert stop(run, whole, folder, 2).startswith("stopped after distilling; go on with: astrea train --resume ")
    student = Path("student", "student.safetensors")
    assert (folder / student).read_bytes() == (whole / student).read_bytes()
    assert not (folder / "student" / "partial").exists()


def test_what_was_kept_of_a_stopped_teaching_must_fit(objective, tmp_path):
    schedule = Schedule(steps=9, batch=2, lr=1e-3, warmup=1)
    optimizer = build_optimizer(objective, schedule)
    learning = torch.nn.ModuleDict({"student": objective.student, "heads": objective.heads})
    objective.loss(objective.batch(0, 0, 2), 0)[0].backward()
    optimizer.step()
    before = {name: value.clone() for name, value in learning.state_dict().items()}

    def kept(**origin: int) -> PartialCheckpoint:
        partial = PartialCheckpoint(tmp_path, {"seed": 0, **origin})
        partial.save(learning, optimizer, 4, 1.5)
        return partial

    def found(
        partial: PartialCheckpoint, module: torch.nn.Module = learning, steps: int = 9
    ) -> tuple[tuple[int, float], str]:
        said = Said()
        at = partial.restore(module, build_optimizer(objective, schedule), steps, said)
        assert (at == (0, 0.0)) == (not partial.folder.exists())
        assert all(torch.equal(value, before[name]) for name, value in learning.state_dict().items())
        return at, said.text

    assert found(kept()) == ((4, 1.5), "teaching goes on from step 4")
    assert found(PartialCheckpoint(tmp_path / "none", {})) == ((0, 0.0), "")
    anew = "it is taught anew"
    kept(seed=1)
    assert found(PartialCheckpoint(tmp_path, {"seed": 0}))[1].endswith(anew)
    assert "of another student" in found(kept(), torch.nn.Linear(2, 2))[1]
    assert "of another schedule" in found(kept(), steps=4)[1]
    partial = kept()
    (file,) = partial.folder.glob("step-*/learning.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    assert "is corrupt" in found(partial)[1]


@pytest.mark.parametrize("what", ["weights", "card", "recipe"])
def test_a_student_that_cannot_be_trusted_is_taught_anew(run, whole, tmp_path, what):
    folder = tmp_path / what
    shutil.copytree(whole / "student", folder / "student")
    kept, card = folder / "student" / "student.safetensors", folder / "student" / "card.json"
    original = kept.read_bytes()
    if what == "weights":
        kept.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    elif what == "card":
        card.write_text("{")
    else:
        run = run.model_copy(update={"distill": run.distill.model_copy(update={"steps": 2})})
    said = Said()
    train(run, folder, cache=whole.parent / "cache", report=said)
    aloud = [line for line in said.lines if "taught anew" in line]
    assert len(aloud) == (0 if what == "recipe" else 1)
    # The same teaching gives the same bits; another one gives another student.
    assert (kept.read_bytes() == original) == (what != "recipe")


def test_another_student_than_the_checkpoints_is_refused(run, whole, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(whole, folder)
    kept, card = folder / "student" / "student.safetensors", folder / "student" / "card.json"
    other = StudentExpert()
    load_component(other, folder / "student", "student")
    with torch.no_grad():
        other.place.add_(1)
    save_component(other, kept)
    told = json.loads(card.read_text())
    told["sha256"]["student"] = sha256_file(kept)
    card.write_text(json.dumps(told))
    with pytest.raises(AstreaError, match="other experts"):
        train(run, folder, resume=True, cache=whole.parent / "cache", report=Reporter())
