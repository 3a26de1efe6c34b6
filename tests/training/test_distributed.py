"""Several processes: the same numbers as one, however they are started, stopped and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import many_processes
from astrea.common.errors import AstreaError
from astrea.fusion.draws import for_rows, rand_rows
from astrea.recipes.loader import dump_recipe, load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.distributed import SINGLE, Distributed, buckets
from astrea.training.fsdp import blocks_of
from astrea.training.resume import REFUSE, RESUME, START, decide
from astrea.training.stages.step import step_generator
from astrea.training.trainer import config_hash
from many_processes import REFUSED, STOPPED

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")

CHANGES = (
    "experts={captioning: {kind: captioning}, detection: {kind: detection, options: {threshold: 0.02}}}",
    *("align.steps=3", "fuse.steps=2", "tune.steps=3", "fuse.accumulate=2"),
    *(
        "regularisation.expert_dropout=0.5",
        "regularisation.corruption=0.3",
        "data.train_scenes=64",
        "contrast.queue=16",
    ),
    *(f"{stage}.batch=8" for stage in ("align", "fuse", "tune")),
)
STEPS = 8
FSDP = ["runtime.llm=fsdp"]
ONLY_FUSE = ["align.steps=0", "tune.steps=0", "model.strategy=mova"]

JOBS: dict[str, dict[str, Any]] = {
    "one": {"world": 1},
    "two": {"world": 2},
    "four": {"world": 4, "at": 6, "rank": 2, "signal": signal.SIGTERM},
    "four, then two": {"world": 2, "resume": True, "folder": "four"},
    "sharded": {"world": 2, "overrides": FSDP, "at": 6, "rank": 0, "signal": signal.SIGTERM},
    "sharded again": {
        "world": 2, "overrides": FSDP, "resume": True, "folder": "sharded", "at": 1, "rank": 1,
        "signal": signal.SIGINT,
    },
    "sharded, then one": {"world": 1, "resume": True, "folder": "sharded"},
    "killed": {
        "world": 2, "restarts": 1, "overrides": ["tune.save_every=1"], "at": 7, "rank": 1, "signal": signal.SIGKILL,
    },
    "mova one": {"world": 1, "overrides": ONLY_FUSE},
    "mova two": {"world": 2, "overrides": ONLY_FUSE},
    "mixed one": {"world": 1, "kind": "mixed"},
    "mixed two": {"world": 2, "kind": "mixed"},
    "mixed sharded": {"world": 2, "kind": "mixed", "fsdp": True},
    "started over": {"world": 2, "folder": "two"},
    "too small": {"world": 2, "overrides": ["fuse.batch=1"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def recipe(small_overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "shared.yaml"
    path.write_text(dump_recipe(load_recipe(Recipe, "tiny", [*small_overrides, *CHANGES])))
    return path


@pytest.fixture(scope="module")
def ends(recipe: Path, runs: Path) -> dict[str, list[int]]:
    """How the processes of every job ended."""
    jobs = {name: {"folder": name, "recipe": str(recipe), **job} for name, job in JOBS.items()}
    for job in jobs.values():
        job["folder"] = str(runs / job["folder"])
    (runs / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run(
        [sys.executable, many_processes.__file__, str(runs / "jobs.json")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def state(folder: Path) -> dict[str, torch.Tensor]:
    """Everything that the newest checkpoint holds."""
    last = folder / "checkpoints" / (folder / "checkpoints" / "latest").read_text().strip()
    return {f"{p.stem}.{name}": value for p in last.glob("*.safetensors") for name, value in load_file(p).items()}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def alike(one: Path, other: Path) -> None:
    """The same steps with the same figures, and the same state, to the rounding of float32."""
    for mine, theirs in zip(rows(one), rows(other), strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            wanted = pytest.approx(value, rel=1e-4, abs=1e-6) if isinstance(value, float) else value
            assert theirs[name] == wanted, (mine["step"], name)
    a, b = state(one), state(other)
    assert a.keys() == b.keys()
    off = {name: (a[name].double() - b[name].double()).abs() for name in a}
    # Adam makes a step of full length out of a gradient that is nothing but rounding; such weights are few.
    assert sum(int((o > 2e-5).sum()) for o in off.values()) < 1e-3 * sum(o.numel() for o in off.values())
    exact = ("queue.", "strategy.", "words.")
    buffers = ("load_bias", "trust.usual", "trust.spread", "trust.observed", "residual_keep")
    held = {name: o for name, o in off.items() if name.startswith(exact) or name.endswith(buffers)}
    assert len(held) == 4 + 2 + 2 + len(buffers)
    assert {name for name, o in held.items() if o.numel() and o.max() > 2e-5} == set()


# The same as one process


@pytest.mark.slow
def test_two_processes_are_one(ends, runs):
    assert ends["one"] + ends["two"] == [0, 0, 0]
    assert [row["step"] for row in rows(runs / "one")] == list(range(1, STEPS + 1))
    assert {"itc", "agree", "word"} <= rows(runs / "one")[1].keys()
    assert {"lm", "reliability", "itc", "contribution"} <= rows(runs / "one")[-1].keys()
    held = state(runs / "one")
    assert held["queue.ids"].min() >= 0
    assert held["strategy.table"].abs().max() > 1e-4
    alike(runs / "one", runs / "two")


@pytest.mark.slow
def test_four_processes_stop_together_and_two_go_on(ends, runs):
    assert ends["four"] == [STOPPED] * 4
    assert ends["four, then two"] == [0, 0]
    alike(runs / "one", runs / "four")


@pytest.mark.slow
def test_a_sharded_language_model_is_the_same_and_may_go_on_whole(ends, runs):
    assert ends["sharded"] == ends["sharded again"] == [STOPPED] * 2
    assert ends["sharded, then one"] == [0]
    alike(runs / "one", runs / "sharded")
    manifest = max((runs / "sharded" / "checkpoints").glob("step-*/manifest.json"))
    assert json.loads(manifest.read_text())["world_size"] == 1


@pytest.mark.slow
def test_after_a_kill_torchrun_starts_anew_and_the_end_is_the_same_bits(ends, runs):
    assert ends["killed"] == [0, 0]
    for name in ("model/model.safetensors", "train.jsonl"):
        assert (runs / "killed" / name).read_bytes() == (runs / "two" / name).read_bytes()


@pytest.mark.slow
def test_what_a_strategy_draws_per_row_is_the_same(ends, runs):
    """One with a row per question: ranks have different numbers of rows."""
    assert ends["mova one"] + ends["mova two"] == [0, 0, 0]
    for mine, theirs in zip(rows(runs / "mova one"), rows(runs / "mova two"), strict=True):
        assert mine["lm"] == pytest.approx(theirs["lm"], rel=1e-4)
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("other", ["mixed two", "mixed sharded"])
def test_ranks_without_a_picture_hang_nobody(ends, runs, other):
    assert ends["mixed one"] + ends[other] == [0, 0, 0]
    for step in (0, 1):
        one, two = (load_file(runs / f"{name}-{step}.safetensors") for name in ("mixed one", other))
        # In the second step no rank has a picture: what only pictures teach has no gradient anywhere.
        assert any(name.startswith("fusion") for name in one) == (step == 0)
        assert one.keys() == two.keys()
        for name in one:
            scale = 1e-4 * float(one[name].abs().max()) + 1e-7
            assert float((one[name] - two[name]).abs().max()) < scale, (step, name)


@pytest.mark.slow
def test_nothing_random_comes_from_the_global_generators(ends, runs):
    """So no rank needs a random state of its own in the checkpoint."""
    assert list(runs.glob("*.drew")) == []


@pytest.mark.slow
def test_mistakes_are_told_by_every_process(ends, runs):
    assert ends["started over"] == [REFUSED] * 2
    assert "already holds a run's checkpoints" in (runs / "two.error").read_text()
    assert ends["too small"] == [REFUSED] * 2
    assert "fuse.batch is 1" in (runs / "too small.error").read_text()


def test_what_a_run_is_computed_on_is_no_part_of_it(recipe):
    assert config_hash(load_recipe(Recipe, str(recipe))) == config_hash(load_recipe(Recipe, str(recipe), FSDP))


# Going on unasked


def test_only_restarts_of_the_same_job_go_on_unasked(tmp_path, monkeypatch):
    def start(job: str | None, restarts: int = 0, resume: bool = False) -> int:
        for name, value in (("TORCHELASTIC_RUN_ID", job), ("TORCHELASTIC_RESTART_COUNT", str(restarts))):
            monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name, raising=False)
        return decide(tmp_path, resume)

    assert start(None) == START
    assert start("none") == START
    (tmp_path / "checkpoints" / "step-00000003").mkdir(parents=True)
    assert start("none", restarts=1) == RESUME
    assert start(None) == REFUSE
    # Refused at first, a restart of the job that was refused must not go on either.
    assert [start("none", restarts=n) for n in (0, 1, 2)] == [REFUSE] * 3
    assert start(None, resume=True) == RESUME
    # A named job is the same one, also where torchrun does not count (machines came or went); another one is not.
    assert start("mine", resume=True) == RESUME
    assert start("mine") == RESUME
    assert start("other") == REFUSE


# The parts


@pytest.mark.parametrize(("count", "world"), [(8, 3), (3, 3), (96, 7), (2, 5)])
def test_every_row_belongs_to_one_rank(count, world):
    ranks = Distributed(0, world)
    shares = [list(range(count))[ranks.local_slice(count, rank)] for rank in range(world)]
    assert [row for share in shares for row in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_copied_or_asked():
    rows = torch.randn(3, 2, requires_grad=True)
    assert SINGLE.gather(rows, 3) is rows
    assert SINGLE.total({"a": 1.0}) == {"a": 1.0}
    assert (SINGLE.any(True), SINGLE.any(False), SINGLE.from_leader(4), SINGLE.local_slice(5)) == (
        True,
        False,
        4,
        slice(0, 5),
    )
    SINGLE.wait()
    with SINGLE.main_first():
        SINGLE.check_share(1, "align.batch")


def test_buckets_keep_the_order_and_part_types():
    tensors = [torch.zeros(n, dtype=dtype) for n, dtype in ((4, torch.float32), (4, torch.float32), (99, torch.float32),
               (1, torch.bfloat16), (2, torch.bfloat16), (1, torch.float32))]  # fmt: skip
    found = list(buckets(tensors, 32))
    assert [[t.numel() for t in bucket] for bucket in found] == [[4, 4], [99], [1, 2], [1]]
    assert [id(t) for bucket in found for t in bucket] == [id(t) for t in tensors]
    assert list(buckets([])) == []


@pytest.mark.parametrize("per_question", [False, True])
def test_draws_for_some_rows_are_those_of_the_whole_batch(per_question):
    whole = rand_rows(5, 3, 2, generator=torch.Generator().manual_seed(4), per_question=per_question)
    assert torch.equal(whole, torch.rand(5, 3, 2, generator=torch.Generator().manual_seed(4)))
    generator = for_rows(torch.Generator().manual_seed(4), batch=5, questions=3, start=2)
    width = 2 if per_question else 3  # the questions of these rows may be fewer
    some = rand_rows(2, width, 2, generator=generator, per_question=per_question)
    assert torch.equal(some, whole[2:4, :width])


def test_blocks_that_cannot_be_sharded_are_told(make_context):
    language = make_context().model.language_model
    assert len(blocks_of(language)) == 2
    language.base_model.layers[0].mlp.to(torch.bfloat16)
    with pytest.raises(AstreaError, match="mixes") as caught:
        blocks_of(language)
    assert "runtime.llm=replicated" in caught.value.hint
    language._no_split_modules = []
    with pytest.raises(AstreaError, match="does not name its blocks"):
        blocks_of(language)


def test_micro_steps_draw_each_their_own(make_context):
    ctx = make_context()
    drawn = [step_generator(ctx, "fuse", purpose, 3, micro) for purpose in ("lies", "residual") for micro in (0, 1)]
    first = [generator.initial_seed() for generator in drawn]
    assert len(set(first)) == 4
