"""The loss on held-out data while training goes on, and the weights with which it was lowest."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from astrea.common.errors import AstreaError
from astrea.common.progress import Reporter
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe, Schedule
from astrea.training.checkpoint import load_checkpoint
from astrea.training.context import TrainingContext
from astrea.training.identity import config_hash
from astrea.training.log import TrainLog
from astrea.training.loop import build_optimizer, run_steps
from astrea.training.stage_runner import StageRunner
from astrea.training.stopping import Interrupted
from astrea.training.trainer import is_finished, train
from astrea.training.validation import Measured, Validation
from command_line import Astrea, refused
from own_contexts import data_of, fresh, fusing
from own_files import asked_about, drawn, llava_row, save_pictures, write_jsonl

SHORT = ["align.steps=2", "fuse.steps=2", "tune.steps=6", "tune.save_every=2", "data.validation_every=2"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.jsonl and held.jsonl, about different pictures."""
    folder = tmp_path_factory.mktemp("files")
    scenes = drawn(24)
    paths = save_pictures(scenes, folder)
    asked = asked_about(scenes, ("existence", "attribute", "counting"))
    rows = [
        llava_row(f"r{number}", [path], [(q.text, q.answer) for q in own] or [("is there a cat?", "no")])
        for number, (path, own) in enumerate(zip(paths, asked, strict=True))
    ]
    write_jsonl(folder / "train.jsonl", rows[:16])
    write_jsonl(folder / "held.jsonl", rows[16:])
    return folder


@pytest.fixture(scope="module")
def run(small_recipe: Path, files: Path) -> Recipe:
    own = [f"data.train={files / 'train.jsonl'}", f"data.validation={files / 'held.jsonl'}", "data.keep_best=true"]
    return load_recipe(Recipe, str(small_recipe), [*SHORT, *own])


@pytest.fixture(scope="module")
def whole(run: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(run, folder, report=Reporter())
    return folder


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def context_for(make_run, files: Path, tmp_path: Path) -> tuple[TrainingContext, Validation]:
    run = make_run(data__validation=str(files / "held.jsonl"), data__validation_every=2, data__validation_records=8)
    model, tokenizer = fresh(run)
    ctx = TrainingContext(run, model, tokenizer, data_of([files / "train.jsonl"], model, tokenizer))
    return ctx, Validation(ctx, data_of([files / "held.jsonl"], model, tokenizer), tmp_path / "best")


def test_it_is_the_mean_loss_of_the_same_records_each_time(make_run, files, tmp_path):
    ctx, validation = context_for(make_run, files, tmp_path)
    loss, accuracy = validation.measure()
    assert validation.measure() == (loss, accuracy)
    assert 0 <= accuracy <= 1
    assert 1 < loss < 20
    assert ctx.model.training
    with torch.no_grad():
        ctx.model.get_output_embeddings().weight.zero_()
    # Every word is as likely as any other.
    assert validation.measure().loss == pytest.approx(math.log(ctx.model.config.text_config.vocab_size), 1e-4)


def test_accuracy_is_the_share_of_answers_that_are_right_word_for_word(make_run, files, tmp_path):
    """Of questions, not of rows or tokens: a row holds three conversations' worth of them."""
    ctx, validation = context_for(make_run, files, tmp_path)
    packed, says = [], []
    pack = type(validation.data).pack
    forward = type(ctx.model).forward

    def told(self, packer, samples, which, *, per_question):
        found = pack(self, packer, samples, which, per_question=per_question)
        packed.append(found.packed)
        return found

    def knows(self, *args, **inputs):
        """Says the right token everywhere, but for the first token of every row's last answer."""
        out = forward(self, *args, **inputs)
        labels = packed[-1].labels
        sure = torch.nn.functional.one_hot(labels.clamp_min(0).roll(-1, 1), out.logits.shape[-1]).float()
        for row, numbers in enumerate(packed[-1].questions):
            first = ((numbers == numbers.max()) & (labels[row] != -100)).nonzero()[0, 0]
            sure[row, first - 1] = 0
        says.append(sum(int(numbers.max()) for numbers in packed[-1].questions))
        out.logits = sure
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(validation.data), "pack", told)
        patch.setattr(type(ctx.model), "forward", knows)
        accuracy = validation.measure().accuracy
    rows_seen = sum(len(one.input_ids) for one in packed)
    assert sum(says) > rows_seen
    assert accuracy == pytest.approx(1 - rows_seen / sum(says))


def test_measuring_changes_nothing_that_training_goes_by(make_run, files, tmp_path):
    ends = []
    for measures in (False, True):
        ctx, validation = context_for(make_run, files, tmp_path)
        torch.manual_seed(3)
        objective = fusing(ctx)
        schedule = Schedule(steps=3, batch=4, lr=1e-3, warmup=1)
        look = (lambda *_, one=validation: one.measure()) if measures else (lambda *_: None)
        run_steps(objective, schedule, build_optimizer(objective, schedule), on_step=look)
        ends.append((ctx.model.state_dict(), torch.get_rng_state()))
    assert [name for name in ends[0][0] if not torch.equal(ends[0][0][name], ends[1][0][name])] == []
    assert torch.equal(ends[0][1], ends[1][1])


def test_it_is_logged_when_it_is_due_and_at_a_stages_end(whole):
    measured = [row["step"] for row in rows(whole) if "validation" in row]
    assert measured == [4, 6, 8, 10]  # of 2 + 2 + 6 steps: every other one of fuse and tune
    seconds = json.loads((whole / "seconds.json").read_text())
    assert seconds["validation"] > 0


def test_the_model_is_the_best_one(run, whole):
    losses = {row["step"]: row["validation"] for row in rows(whole) if row["stage"] == "tune" and "validation" in row}
    best = load_checkpoint(whole / "best", on_warning=pytest.fail)
    assert best is not None
    assert best.state["validation"] == min(losses.values())
    assert losses[best.step] == min(losses.values())
    model = load_file(whole / "model" / "model.safetensors")
    same = [name for name, value in best.tensors["model"].items() if name in model and torch.equal(value, model[name])]
    assert len(same) > 20


def test_a_stopped_run_goes_on_to_the_same_bits(run, whole, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    write = TrainLog.write

    def stop(self, step, record):
        write(self, step, record)
        if step == 7:
            raise Interrupted("here")

    with monkeypatch.context() as patch:
        patch.setattr(TrainLog, "write", stop)
        with pytest.raises(Interrupted):
            train(run, folder, cache=whole.parent / "cache", report=Reporter())
    # Where it is measured is no part of what a run is.
    train(run, folder, resume=True, cache=whole.parent / "cache", report=Reporter())
    assert rows(folder) == rows(whole)
    mine, theirs = (load_file(one / "model" / "model.safetensors") for one in (folder, whole))
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


def test_scores_and_a_report_of_the_held_out_file(run, whole, monkeypatch, astrea: Astrea):
    monkeypatch.setattr("astrea.evaluation.own_data.answers.LONGEST", {True: 4, False: 2})
    monkeypatch.setattr("astrea.evaluation.own_data.output.SAMPLES", 2)
    # What one message points to is there: without results, the command that makes them.
    refused(astrea("report", whole), f"astrea evaluate {whole}")
    evaluated = astrea("evaluate", whole)
    assert evaluated.code == 0, evaluated.err
    results = json.loads((whole / "results.json").read_text())
    assert (results["suite"], results["recipe"]) == ("own", run.name)
    assert sum(task["n"] for task in results["tasks"].values()) >= 8
    page = (whole / "report.html").read_text()
    assert "Kinds of answers" in page
    assert "validation" in page  # the curve of its loss
    assert astrea("report", whole).code == 0
    assert (whole / "report.html").read_text() == page


def without_progress(monkeypatch, losses: list[float]) -> None:
    """The validation losses of a run that measures at every other step are these, whatever is learned."""

    def says(self):
        return Measured(losses[len(rows(self.folder.parent)) // 2], 0.5)

    monkeypatch.setattr(Validation, "measure", says)


def test_tune_ends_when_the_loss_has_not_fallen_for_long_enough(small_recipe, files, tmp_path, monkeypatch):
    """Recorded, said, and the same for a run that was stopped on the way."""
    without_progress(monkeypatch, [3.0, 2.0, 2.5, 2.25, 1.0, 1.0])
    own = [f"data.train={files / 'train.jsonl'}", f"data.validation={files / 'held.jsonl'}", "data.patience=2"]
    short = ["align.steps=0", "fuse.steps=0", "tune.steps=12", "data.keep_best=true"]
    run = load_recipe(Recipe, str(small_recipe), [*SHORT, *own, *short])
    said: list[str] = []

    class Says(Reporter):
        def say(self, text: str) -> None:
            said.append(text)

    whole = tmp_path / "whole"
    train(run, whole, cache=tmp_path / "cache", report=Says())
    tuned = [row for row in rows(whole) if row["stage"] == "tune"]
    assert [row["validation"] for row in tuned if "validation" in row] == [3.0, 2.0, 2.5, 2.25]
    assert [row["validation_since_best"] for row in tuned if "validation" in row] == [0, 0, 1, 2]
    assert [row.get("ended_early") for row in tuned] == [None] * 7 + [True]
    end = "tune ends at step 8 of 12: the validation loss has not fallen below 2.0000 for 2 measurements"
    assert any(end in text for text in said)
    assert "the model is that of step 4 of tune: validation loss 2.0000" in said
    stopped, write = tmp_path / "stopped", TrainLog.write

    def stop(self, step, record):
        write(self, step, record)
        if step == 7:
            raise Interrupted("here")

    with monkeypatch.context() as patch:
        patch.setattr(TrainLog, "write", stop)
        with pytest.raises(Interrupted):
            train(run, stopped, cache=tmp_path / "cache", report=Reporter())
    train(run, stopped, resume=True, cache=tmp_path / "cache", report=Reporter())
    assert rows(stopped) == rows(whole)
    mine, theirs = (load_file(one / "model" / "model.safetensors") for one in (stopped, whole))
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    # A run that ended early is finished: nothing of its log is missed.
    assert is_finished(run, whole)
    said.clear()
    train(run, whole, resume=True, cache=tmp_path / "cache", report=Says())
    assert not any("missing" in text for text in said)
    assert rows(stopped) == rows(whole)


def test_without_patience_nothing_is_counted(whole):
    assert len(rows(whole)) == 10
    assert not any("validation_since_best" in row or "ended_early" in row for row in rows(whole))


def test_what_a_run_is_measured_on_is_a_part_of_it_where_its_end_goes_by_that(run):
    def data(**changes) -> Recipe:
        return run.model_copy(update={"data": run.data.model_copy(update=changes)})

    assert config_hash(data(validation_every=3)) == config_hash(run)
    assert config_hash(data(patience=2)) != config_hash(run)
    assert config_hash(data(patience=2, validation_every=3)) != config_hash(data(patience=2))


def test_patience_with_nothing_is_refused(small_recipe):
    with pytest.raises(AstreaError, match=r"data.*patience goes by the loss on held-out data"):
        load_recipe(Recipe, str(small_recipe), ["data.patience=3"])


def test_the_best_of_nothing_is_refused(small_recipe):
    with pytest.raises(AstreaError, match=r"data.*keep_best goes by the loss on held-out data"):
        load_recipe(Recipe, str(small_recipe), ["data.keep_best=true"])


def test_a_held_out_file_that_is_not_there_is_told_before_anything_is_trained(run, tmp_path, monkeypatch):
    monkeypatch.setattr(StageRunner, "run_stage", lambda *args: pytest.fail("trained"))
    gone = run.model_copy(update={"data": run.data.model_copy(update={"validation": str(tmp_path / "gone.jsonl")})})
    with pytest.raises(AstreaError, match=r"gone\.jsonl"):
        train(gone, tmp_path / "run", report=Reporter())
    assert not (tmp_path / "run").exists()
