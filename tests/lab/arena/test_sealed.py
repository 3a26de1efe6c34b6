"""What runs are measured on: what a seed draws, what it does not, and test sets that are used once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.common.paths import MOST_JSON
from astrea.common.progress import Reporter
from astrea.common.seeds import sample_indices
from astrea.lab.arena import training
from astrea.lab.arena.arena import Arena, run_arena
from astrea.lab.arena.pool import Pool
from astrea.lab.arena.run import Run, digest
from astrea.lab.arena.sealed import OPEN, TestSet, refuse_used
from astrea.lab.arena.training import keep, kept_training, train_one
from astrea.lab.arena.variants import Variant
from astrea.lab.settings.settings import SETTINGS
from astrea.recipes.recipe import World
from astrea.training.assembly import assemble
from astrea.world.dataset import scenes_of

ASTREA = Variant("astrea", "strategy", (), "")


def arena(folder: Path, test: TestSet, **more) -> Arena:
    return Arena(
        "tiny", (), "astrea,average,switch", 1, folder, 1, more.pop("equal_time", False), "", test=test, **more
    )


def test_a_seed_draws_pictures_order_and_weights_but_never_the_test_set(base):
    first, second = (Run("tiny", base, ASTREA, seed) for seed in (0, 1))
    one, two = first.resolve(), second.resolve()
    assert (one.seed, one.world.seed, two.seed, two.world.seed) == (0, 0, 1, 1)
    pictures = [[scene.spec for scene in scenes_of("train", 3, each.world)] for each in (one, two)]
    assert pictures[0] != pictures[1]  # the questions are drawn from these, and by the same seed
    assert first.test_world() == second.test_world() == one.world
    assert not torch.equal(*(sample_indices(100, 8, 0, each.seed) for each in (one, two)))
    weights = [assemble(each, None)[0].model.fusion.state_dict() for each in (one, two)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    # Counted from the recipe's own seeds.
    shifted = Run("tiny", (*base, "seed=4", "world.seed=9"), ASTREA, 6).resolve()
    assert (shifted.seed, shifted.world.seed) == (6, 11)


def test_a_digest_tells_what_was_measured_on_and_what_was_trained(base):
    runs = [Run("tiny", base, ASTREA, 0, test) for test in (OPEN, TestSet("validation"), TestSet(sealed=7))]
    assert runs[0].digest() == digest(runs[0].resolve())  # as before there was a choice
    assert len({run.digest() for run in runs}) == 3
    assert len({digest(run.resolve()) for run in runs}) == 1
    assert runs[2].test_world().seed == 7


def test_a_sealed_test_set_is_measured_on_once_and_named(pretended, tmp_path):
    made, failed = run_arena(arena(tmp_path / "a", TestSet(sealed=7)), report=Reporter())
    assert failed == {}
    kept = json.loads((tmp_path / "a" / "sealed-7.json").read_text())
    assert (kept["sealed"], kept["measured_on"]) == (7, "test")
    assert set(made["strategies"]) == {"astrea", "average", "switch"}
    assert (tmp_path / "a" / "sealed-7" / "strategy-astrea-0.json").exists()
    assert not (tmp_path / "a" / "arena.json").exists()
    for folder in ("a", "b"):  # the same folder, and one beside it
        with pytest.raises(AstreaError, match=r"sealed-7\.json was measured"):
            run_arena(arena(tmp_path / folder, TestSet(sealed=7)), report=Reporter())
    run_arena(arena(tmp_path / "a", TestSet(sealed=8)), report=Reporter())


@pytest.mark.parametrize("folder", ["a", "b"])
@pytest.mark.parametrize("content", [b'{"sealed": 7, "strat', b"", b"\xff\xfe"])
def test_a_file_that_cannot_be_read_may_name_the_seed(tmp_path, folder, content):
    damaged = tmp_path / folder / "old results.json"
    damaged.parent.mkdir()
    damaged.write_bytes(content)
    with pytest.raises(AstreaError, match=r"--sealed 7: file .*old results\.json is damaged") as raised:
        refuse_used(TestSet(sealed=7), tmp_path / "a", World())
    assert "restore the file" in raised.value.hint
    damaged.rename(tmp_path / "old results.json")  # moved away, as the hint has it
    refuse_used(TestSet(sealed=7), tmp_path / "a", World())


def test_what_cannot_be_a_result_file_names_no_seed(tmp_path):
    (tmp_path / "a" / "folder.json").mkdir(parents=True)
    (tmp_path / "a" / "list.json").write_text("[7]")
    (tmp_path / "a" / "lines.jsonl").write_text('{"sealed": 7}\n{"sealed": 7}')
    with (tmp_path / "a" / "annotations.json").open("wb") as file:
        file.truncate(MOST_JSON + 1)  # sparse: it takes no room on the disk
    refuse_used(TestSet(sealed=7), tmp_path / "a", World())


def test_the_open_test_sets_seed_is_not_sealed(tmp_path):
    with pytest.raises(AstreaError, match="open test set"):
        refuse_used(TestSet(sealed=3), tmp_path, World(seed=3))
    refuse_used(TestSet(sealed=4), tmp_path / "new" / "folder", World(seed=3))
    refuse_used(OPEN, tmp_path, World(seed=3))


def test_no_sealed_result_before_every_run_has_finished(pretended, monkeypatch, tmp_path):
    whole = Pool.run

    def fails(self: Pool, runs) -> None:
        whole(self, runs[:-1])
        self.fail(runs[-1], "it rained")

    with monkeypatch.context() as patch:
        patch.setattr(Pool, "run", fails)
        _, failed = run_arena(arena(tmp_path / "a", TestSet(sealed=7)), report=Reporter())
    assert list(failed.values()) == ["it rained"]
    assert not (tmp_path / "a" / "sealed-7.json").exists()
    assert (
        run_arena(arena(tmp_path / "a", TestSet(sealed=7)), report=Reporter())[1] == {}
    )  # so the same command goes on
    assert (tmp_path / "a" / "sealed-7.json").exists()


def test_the_best_other_strategy_is_validations_choice(pretended, tmp_path):
    run_arena(arena(tmp_path / "a", TestSet("validation")), report=Reporter())
    path = tmp_path / "a" / "validation.json"
    chosen = json.loads(path.read_text())
    other = {"average": "switch", "switch": "average"}[chosen["best_other"]["name"]]
    path.write_text(json.dumps(chosen | {"best_other": {"name": other}}))
    made, _ = run_arena(arena(tmp_path / "a", TestSet(sealed=7)), report=Reporter())
    assert made["best_other"]["name"] == other


@pytest.mark.parametrize(("option", "more"), [("--trials", {"lr_sweep": True}), ("--wall", {"equal_time": True})])
def test_nothing_is_chosen_on_a_sealed_test_set(option, more, tmp_path):
    with pytest.raises(AstreaError, match=option):
        run_arena(arena(tmp_path, TestSet(sealed=7), **more), report=Reporter())


def test_a_model_that_was_kept_is_not_trained_again(base, monkeypatch, tmp_path):
    recipe, kept = Run("tiny", base, ASTREA, 0).resolve(), tmp_path / "models" / "one"

    def pretend(recipe, folder: Path, *, observe, **more) -> Path:
        observe.learned |= {"b", "a"}
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "weights").write_text("w")
        (folder / "seconds.json").write_text('{"tune": 3.5}')
        return folder / "model"

    monkeypatch.setattr(training, "train", pretend)
    assert kept_training(kept, digest(recipe)) is None
    made = train_one(recipe, tmp_path / "work", cache=tmp_path / "cache", curve=0)
    keep(made, kept, digest(recipe))
    again = kept_training(kept, digest(recipe))
    assert again is not None
    assert (again.learned, again.seconds) == (made.learned, made.seconds) == (["a", "b"], {"tune": 3.5})
    assert (again.model / "weights").read_text() == "w"
    assert kept_training(kept, "of another recipe") is None
    assert kept_training(None, digest(recipe)) is None


def test_words_that_name_no_split_are_told(command, tmp_path):
    code, output = command("--on", "train", "--out", tmp_path)
    assert (code, "no such split" in output) == (1, True)
    code, output = command("--on", "validation", "--sealed", 3, "--out", tmp_path)
    assert (code, "not --on validation" in output) == (1, True)


def test_an_arena_in_a_setting_says_so_and_has_its_variants(pretended, tmp_path):
    setting = SETTINGS["e4"]
    asked = Arena(
        "tiny", ("align.steps=20",), "astrea,progressive,with_names", 1, tmp_path, 1, False, "", setting=setting
    )
    made, failed = run_arena(asked, report=Reporter())
    assert failed == {}
    assert made["setting"] == json.loads((tmp_path / "arena.json").read_text())["setting"] == "no words given"
    assert set(made["ablations"]) == {"progressive", "with_names"}
