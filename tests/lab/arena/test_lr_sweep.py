from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from astrea.common.errors import AstreaError
from astrea.common.progress import Reporter
from astrea.lab.arena import run as run_module
from astrea.lab.arena import variants as variants_module
from astrea.lab.arena.arena import Arena, current, run_arena
from astrea.lab.arena.collect import collect
from astrea.lab.arena.lr_sweep import FACTORS, sweep, sweep_of
from astrea.lab.arena.page.page import render
from astrea.lab.arena.pool import Pool
from astrea.lab.arena.run import Run, digest, measure
from astrea.lab.arena.table import lr_sweep_table
from astrea.lab.arena.variants import PEER_RATE, Variant, strategies, variants
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.world.evaluation.tasks import TASKS, build_test_sets
from benchmark_scripts import benchmark_script
from repository import ROOT

RATES = ("align.lr=0.001", "fuse.lr=0.001", "tune.lr=0.001")
BASE = load_recipe(Recipe, "tiny", RATES)
TABLE = variants_module.TUNED


def resolved(variant: Variant, *base: str) -> Recipe:
    return Run("tiny", (*RATES, *base), variant, 0).resolve()


def named(everyone: list[Variant]) -> dict[str, Variant]:
    return {each.name: each for each in everyone}


@pytest.fixture(autouse=True)
def untuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the table holds, tests are about trials."""
    monkeypatch.setattr(variants_module, "TUNED", {})


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if trials had found rates for two strategies."""
    found = {
        "mova": ("fuse.lr=0.002", "tune.lr=0.002"),
        "astrea": ("align.lr=0.0005", "fuse.lr=0.0005", "tune.lr=0.0005"),
    }
    monkeypatch.setattr(variants_module, "TUNED", found)


# Who is tried


@pytest.mark.parametrize("strategy", strategies(BASE), ids=lambda each: each.name)
def test_a_trial_differs_from_its_strategy_in_learning_rates_alone(strategy: Variant):
    whole = resolved(strategy, "fuse.lr=0.003")
    made = [
        each
        for each in sweep(load_recipe(Recipe, "tiny", [*RATES, "fuse.lr=0.003"]))
        if each.name.startswith(strategy.name + "@")
    ]
    assert [each.name for each in made] == [f"{strategy.name}@{factor}" for factor in FACTORS]
    for each in made:
        factor = float(each.name.split("@")[1])
        run = resolved(each, "fuse.lr=0.003")
        # The base recipe's rates are Astrea's; the others start from their own.
        own = strategy.name == "astrea"
        rates = {"fuse": (0.003 if own else PEER_RATE) * factor, "tune": (0.001 if own else PEER_RATE) * factor}
        if whole.align.steps:
            rates["align"] = (0.001 if own else PEER_RATE) * factor
        assert set(each.overrides[len(strategy.overrides) :]) == {f"{stage}.lr={lr!r}" for stage, lr in rates.items()}
        assert {stage: getattr(run, stage).lr for stage in rates} == rates
        same = {stage: getattr(run, stage).model_copy(update={"lr": getattr(whole, stage).lr}) for stage in rates}
        assert run.model_copy(update=same) == whole
    digests = [digest(resolved(each, "fuse.lr=0.003")) for each in made]
    assert digests[1] == digest(whole)
    assert len(set(digests)) == len(FACTORS)


def test_only_strategies_that_were_named_are_tried():
    everyone = variants(BASE)
    assert [each.name for each in sweep_of(BASE, everyone, "mixer,mova")] == [f"mova@{factor}" for factor in FACTORS]
    assert len(sweep_of(BASE, everyone, "all")) == len(FACTORS) * len(strategies(BASE))
    with pytest.raises(AstreaError, match="names no strategy"):
        sweep_of(BASE, everyone, "ablations")
    with pytest.raises(AstreaError, match="did you mean 'mova'"):
        sweep_of(BASE, everyone, "mov")


# What trials found


def test_without_found_rates_variants_are_what_they_were():
    module = variants_module
    assert variants(BASE) == [*strategies(BASE), *module.ablations(BASE), *module.retraining(BASE), *module.pairs(BASE)]


def test_every_rate_in_the_table_is_one_that_was_tried(monkeypatch):
    monkeypatch.setattr(variants_module, "TUNED", TABLE)
    everyone, tries = named(variants(BASE)), named(sweep(BASE))
    names = {each.name for each in strategies(BASE)}
    assert set(TABLE) <= names
    for name in names:
        tested = {digest(resolved(tries[f"{name}@{factor}"])) for factor in FACTORS}
        assert digest(resolved(everyone[name])) in tested


def test_found_rates_hold_for_the_strategy_and_for_astreas_variants_but_not_for_trials(tuned):
    everyone = named(variants(BASE))
    assert resolved(everyone["mova"]).tune.lr == 0.002
    assert resolved(everyone["average"]).tune.lr == 0.001
    for name in ("astrea", "mixer", "without_detection", "pair_captioning_detection"):
        run = resolved(everyone[name])
        assert (run.align.lr, run.fuse.lr, run.tune.lr) == (0.0005, 0.0005, 0.0005)
    assert resolved(everyone["mixer"]).model.mixer is False
    tries = named(sweep(BASE))
    assert resolved(tries["mova@1"]).tune.lr == 0.001
    assert digest(resolved(tries["mova@2"])) == digest(resolved(everyone["mova"]))
    assert digest(resolved(tries["astrea@0.5"])) == digest(resolved(everyone["astrea"]))


def test_a_variants_own_change_wins_over_astreas_found_rates(monkeypatch):
    monkeypatch.setattr(variants_module, "TUNED", {"astrea": ("model.mixer=true", "tune.lr=0.002")})
    run = resolved(named(variants(BASE))["mixer"])
    assert (run.model.mixer, run.tune.lr) == (False, 0.002)


# One trial


@pytest.mark.slow
def test_a_trial_is_scored_on_validation_without_probes_or_curve(base, tmp_path, monkeypatch):
    seen = []

    def spied(*args, **kwargs):
        seen.append((kwargs["split"], build_test_sets(*args, **kwargs)))
        return seen[-1][1]

    monkeypatch.setattr(run_module, "build_test_sets", spied)
    # Of Astrea, whose strategy's run has both probes and a curve.
    who = named(sweep(load_recipe(Recipe, "tiny", base)))["astrea@2"]
    run = Run("tiny", base, who, 0)
    assert run.stem == "trial-astrea@2-0"
    (tmp_path / "work").mkdir()
    made = measure(run.spec(cache=tmp_path / "cache", work=tmp_path / "work"))
    recipe = run.resolve()
    ((split, sets),) = seen
    assert split == made["split"] == "validation"
    pictures = [scene.spec for scene in sets.scenes]
    assert pictures == [scene.spec for scene in build_test_sets(recipe.world, recipe.data, split="validation").scenes]
    assert pictures != [scene.spec for scene in build_test_sets(recipe.world, recipe.data).scenes]
    assert (made["kind"], made["probes"], made["curve"]) == ("trial", None, [])
    assert made["digest"] == digest(recipe)
    assert list(made["tasks"]) == list(TASKS)


# In the arena


def arena(folder: Path, wanted: str, *base: str, **more) -> Arena:
    return Arena("tiny", (*RATES, *base), wanted, 2, folder, 1, False, "", **more)


def cells_in(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "cells").iterdir()}


def test_trials_run_nothing_else_and_the_normal_command_reads_them(pretended, tmp_path):
    made, failed = run_arena(arena(tmp_path, "mova,average,mixer", lr_sweep=True), report=Reporter())
    assert failed == {}
    wanted = {f"trial-{name}@{factor}-0" for name in ("mova", "average") for factor in FACTORS}
    assert cells_in(tmp_path) == wanted
    assert made["strategies"] == made["ablations"] == {}
    assert made["trials"]["mova"] == {"rates": dict.fromkeys(FACTORS, 50.0), "best": "1", "used": None}

    made, _ = run_arena(arena(tmp_path, "mova,average"), report=Reporter())
    assert cells_in(tmp_path) == wanted | {f"strategy-{name}-{seed}" for name in ("mova", "average") for seed in (0, 1)}
    assert set(made["strategies"]) == set(made["trials"]) == {"mova", "average"}
    assert made["trials"]["mova"]["used"] == "1"
    assert json.loads((tmp_path / "arena.json").read_text())["trials"] == made["trials"]
    assert 'id="lr-sweep"' in (tmp_path / "arena.html").read_text()


def test_what_is_used_is_what_the_strategys_cell_was_trained_with(pretended, tuned, tmp_path):
    run_arena(arena(tmp_path, "mova", lr_sweep=True), report=Reporter())
    made, _ = run_arena(arena(tmp_path, "mova"), report=Reporter())
    assert made["trials"]["mova"]["used"] == "2"


def test_trials_resume_and_stale_ones_run_again(pretended, tmp_path, said):
    asked = arena(tmp_path, "mova", lr_sweep=True)
    run_arena(asked, report=Reporter())
    pool = Pool(tmp_path, 1, said)
    runs = asked.runs(sweep_of(BASE, variants(BASE), "mova"))
    assert pool.missing(runs) == []
    (tmp_path / "cells" / "trial-mova@2-0.json").unlink()
    assert [run.stem for run in pool.missing(runs)] == ["trial-mova@2-0"]
    other = arena(tmp_path, "mova", "tune.steps=9", lr_sweep=True)
    changed = sweep_of(other.base(), variants(other.base()), "mova")
    assert len(pool.missing(other.runs(changed))) == len(FACTORS)
    assert "trial-mova@1-0.json is stale" in said.text
    # Nor are they shown beside runs of that recipe.
    assert current(other, variants(other.base()), report=Reporter()) == []


def test_a_trial_of_another_seed_is_left_out(pretended, tmp_path, said):
    run_arena(arena(tmp_path, "mova", "seed=5", lr_sweep=True), report=Reporter())
    assert {stem[-2:] for stem in cells_in(tmp_path)} == {"-5"}
    assert current(arena(tmp_path, "mova"), variants(BASE), report=said) == []
    assert "trial-mova@1-5.json was made with other settings" in said.text
    assert len(current(arena(tmp_path, "mova", "seed=5"), variants(BASE), report=said)) == len(FACTORS)


def test_a_cell_at_equal_time_goes_with_its_strategys_rates(pretended, tmp_path, monkeypatch):
    asked = Arena("tiny", RATES, "astrea,mova", 1, tmp_path, 1, True, "")
    made, _ = run_arena(asked, report=Reporter())
    assert set(made["equal_wall"]) == {"mova"}
    monkeypatch.setattr(variants_module, "TUNED", {"mova": ("tune.lr=0.002",)})
    left = current(asked, variants(BASE), report=Reporter())
    assert [(record["kind"], record["name"]) for record in left] == [("strategy", "astrea")]


# What is output of them


def tries(make_record, name: str, scores: dict[str, float], **more) -> list[dict]:
    return [
        make_record(f"{name}@{factor}", kind="trial", items=score, digest=f"{name}{factor}", **more)
        for factor, score in scores.items()
    ]


@pytest.fixture
def records(make_record) -> list[dict]:
    return [
        make_record(items=0.7, digest="astrea1"),
        make_record("mova", digest="mova0.5"),
        make_record("switch", digest="none of them"),
        *tries(make_record, "astrea", {"0.5": 0.5, "1": 0.7, "2": 0.7, "4": 0.1}),
        *tries(make_record, "mova", {"0.5": 0.9, "1": 0.2, "2": 0.3, "4": 0.4}),
        *tries(make_record, "switch", {"2": 0.6}),
    ]


def test_the_best_is_known_when_all_are_finished(records):
    found = collect(records)["trials"]
    assert found == {
        "astrea": {"rates": {"0.5": 50.0, "1": 70.0, "2": 70.0, "4": 10.0}, "best": "1", "used": "1"},  # of equals
        "mova": {"rates": {"0.5": 90.0, "1": 20.0, "2": 30.0, "4": 40.0}, "best": "0.5", "used": "0.5"},
        "switch": {"rates": {"0.5": None, "1": None, "2": 60.0, "4": None}, "best": None, "used": None},
    }


def test_trials_are_nowhere_else(records):
    without = [record for record in records if record["kind"] != "trial"]
    made = collect(records)
    assert made.pop("trials")
    assert made == {name: value for name, value in collect(without).items() if name != "trials"}
    assert collect(without)["trials"] == {}


def test_the_terminal_shows_them(records):
    file = io.StringIO()
    Console(width=80, file=file).print(lr_sweep_table(collect(records)))
    lines = [line.split() for line in file.getvalue().splitlines()]
    assert ["mova", "90.0", "20.0", "30.0", "40.0", "x0.5", "x0.5"] in lines
    assert ["switch", "60.0"] in lines


def test_the_page_shows_them_and_leaves_the_section_out_without_any(records):
    text = render(collect(records))
    section = re.search(r'<section id="lr-sweep".*?</section>', text, re.S)
    assert section
    shown = {
        row[0]: row[1:]
        for line in re.findall(r"<tr.*?</tr>", section[0], re.S)
        if (row := [re.sub("<.*?>", "", each) for each in re.findall(r"<t[hd].*?</t[hd]>", line)])
    }
    assert shown["Strategy"] == ["×0.5", "×1", "×2", "×4", "Used"]
    assert shown["astrea"] == ["50.0", "★ 70.0", "70.0", "10.0", "×1"]
    assert shown["switch"] == ["–", "–", "60.0", "–", "–"]
    assert '<a href="#lr-sweep">' in text
    without = render(collect([record for record in records if record["kind"] != "trial"]))
    assert "lr-sweep" not in without
    assert "earning rates tried" not in without


def test_the_docs_show_them_and_leave_the_section_out_without_any(records):
    script, page = benchmark_script("readme"), (ROOT / "docs" / "arena.md").read_text()
    filled = script.fill(page, "trials", script.trials_part(collect(records)))
    assert "\n## Learning rates tried\n" in filled
    assert "| strategy | x0.5 | x1 | x2 | x4 | used |\n| --- | ---: | ---: | ---: | ---: | ---: |\n" in filled
    assert "\n| astrea | 50.0 | **70.0** | 70.0 | 10.0 | x1 |\n" in filled
    assert "\n| switch |  |  | 60.0 |  |  |\n" in filled
    for nothing in ({}, {"trials": {}}):
        emptied = script.fill(filled, "trials", script.trials_part(nothing))
        assert "Learning rates tried" not in emptied
        assert script.fill(emptied, "trials", script.trials_part(collect(records))) == filled  # the marks are kept


# The command


def test_help_says_that_trials_run_alone(command):
    code, output = command("--help")
    assert code == 0
    words = " ".join(re.sub("[│|]", " ", output).split())
    assert "--trials" in words
    for said in (
        "learning-rate sweep of the chosen strategies and nothing else",
        "0.5, 1, 2 and 4",
        "first seed only",
        "validation split",
    ):
        assert said in words


def test_the_command_runs_trials_and_shows_them(pretended, command, tmp_path):
    code, output = command("--trials", "--strategies", "mova", "--out", tmp_path / "a")
    assert code == 0, output
    assert "learning rates tried" in output
    assert "mova" in output
    assert cells_in(tmp_path / "a") == {f"trial-mova@{factor}-0" for factor in FACTORS}
    assert json.loads((tmp_path / "a" / "arena.json").read_text())["command"].startswith("astrea arena --trials")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--trials", "--wall"), "nothing but the learning-rate sweep"),
        (("--trials", "--strategies", "pairs"), "names no strategy"),
        (("--trials", "--strategies", "mova@2"), "unknown variant"),
    ],
)
def test_what_cannot_be_tried_is_told_before_anything_runs(command, tmp_path, asked, said):
    code, output = command(*asked, "--out", tmp_path / "a")
    assert code == 1
    assert said in " ".join(output.split())
    assert not (tmp_path / "a").exists()
