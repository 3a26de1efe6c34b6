"""How fast the tiny recipe trains, with and without the feature cache, and how much of the machine it uses.

    python benchmarks/train_speed.py --repeats 7 --threads 2

One run measures everything, in turn, repeat by repeat, so that whatever else the machine does falls on all figures
alike:

* ``tune`` and ``align``: optimizer steps as training takes them, once with what is frozen cached (the experts'
  features; in ``align`` the language model's caption states too) and once with all of it computed anew for each batch.
  The pictures themselves are drawn beforehand in both cases.
  A ``tune`` step runs the language model forward and backward over every question of its pictures. An ``align`` step
  (all experts together) runs it over the captions only, forward only, and not at all with cached states.
* the share of the machine's fp32 matrix multiplication rate that the language model's forward and backward pass on a
  ``tune`` batch reaches (adapters and fusion, which feed it, included) and, beside it, the whole ``tune`` step. Of the
  operations only those of matrix products are counted; of the time, all.

A figure covers ``--steps`` optimizer steps, from step 0 on. With the recipe's 10 one of them measures the experts'
contributions, as one in 10 does in training.

Speed does not depend on what the weights say: without ``--parts`` they are fresh.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import astrea
from astrea.common.progress import Reporter
from astrea.common.provenance import machine
from astrea.data.feature_cache import FeatureCache
from astrea.experts.bank import ExpertBank
from astrea.experts.protocol import ExpertFeatures
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe, Schedule, Stage
from astrea.training.assembly import assemble
from astrea.training.context import TrainingContext
from astrea.training.loop import Objective, build_optimizer, run_steps
from astrea.training.stages.align import AlignObjective
from astrea.training.stages.instruct import InstructObjective
from astrea.training.trainable import train_only
from astrea.world.dataset import WorldData, load_world, scenes_of
from astrea.world.experts.truth import pixels_from_scenes
from result_files import write_results

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results" / "train_speed.json"
WANTED = 5.0
"""How many times as fast a step should be with cached features."""


class Uncached(WorldData):
    """The same data, but features are what the experts see when they are asked for."""

    def __init__(self, data: WorldData, bank: ExpertBank, pixels_N3HW: Tensor) -> None:
        super().__init__(data.features, data.questions, data.captions)
        object.__setattr__(self, "bank", bank)
        object.__setattr__(self, "pixels", pixels_N3HW)

    def rows(self, index: Tensor) -> dict[str, ExpertFeatures]:
        with torch.no_grad():
            return self.bank(self.pixels[index])  # type: ignore[attr-defined]


class StepTimer:
    """Optimizer steps of one stage, by the loop that training uses."""

    def __init__(self, ctx: TrainingContext, objective: Objective, stage: Stage, pixels_N3HW: Tensor) -> None:
        self.ctx, self.objective, self.batch = ctx, objective, stage.batch * stage.accumulate
        self.schedule: Schedule = stage
        self.cached, self.states = ctx.data, ctx.kept_states
        self.uncached = Uncached(ctx.data, ctx.model.experts, pixels_N3HW)
        self.freeze()
        self.optimizer = build_optimizer(objective, self.schedule)

    def freeze(self) -> None:
        """As training does: what does not learn in this stage costs no gradient."""
        learns = (parameter for _, parameter, _ in self.objective.trainable())
        train_only(learns, (self.ctx.model, self.ctx.contrast, self.ctx.words))

    def run(self, steps: int, *, cache: bool) -> float:
        """Samples per second of steps 0 .. steps - 1."""
        self.freeze()
        self.ctx.data = self.cached if cache else self.uncached
        self.ctx.kept_states = self.states if cache else None
        schedule = Schedule(steps=steps, batch=self.schedule.batch, lr=1e-6, accumulate=self.schedule.accumulate)
        seconds = timed(lambda: run_steps(self.objective, schedule, self.optimizer, on_step=lambda *_: None))
        self.ctx.data, self.ctx.kept_states = self.cached, self.states
        return steps * self.batch / seconds


def timed(work: Callable[[], Any]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def spread(values: Sequence[float], digits: int = 3) -> dict[str, Any]:
    """Minimum, median, maximum and every value."""
    return {
        "min": round(min(values), digits),
        "median": round(statistics.median(values), digits),
        "max": round(max(values), digits),
        "all": [round(value, digits) for value in values],
    }


def flops_of(work: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products (and convolutions) of some work, backward passes included."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def gemm_rate(size: int) -> float:
    """GFLOP/s of one large fp32 matrix product."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    out = torch.empty(size, size)
    return 2 * size**3 / timed(lambda: torch.mm(a, b, out=out)) / 1e9


def git_state() -> dict[str, Any]:
    """The commit that was measured, and whether files differed from it; None where there is no git."""

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    changed = ask("status", "--porcelain", "--untracked-files=no")
    return {"commit": ask("rev-parse", "HEAD"), "changed_files": None if changed is None else bool(changed)}


def prepare(recipe: Recipe, parts: Path | None, scenes: int) -> tuple[TrainingContext, Tensor]:
    """Model, cached training data, and the pixels that the data was made from."""
    model, tokenizer = assemble(recipe, parts)
    with tempfile.TemporaryDirectory() as folder:
        report, cache = Reporter(), FeatureCache(Path(folder))
        data = load_world(
            model.experts,
            recipe.world,
            count=scenes,
            per_scene=recipe.data.questions_per_scene,
            cache=cache,
            progress=report.track,
            notify=report.say,
        )
        ctx = TrainingContext(recipe, model, tokenizer, data)
        ctx.keep_states(cache, report.track, report.say)
    pixels = pixels_from_scenes(list(scenes_of("train", scenes, recipe.world)))
    model.train()
    return ctx, pixels


def measure(
    recipe: Recipe, ctx: TrainingContext, pixels_N3HW: Tensor, *, repeats: int, steps: int, gemm: int
) -> dict[str, Any]:
    """Everything, in turn, ``repeats`` times, after one round that is not counted."""
    timers = {
        "tune": StepTimer(ctx, InstructObjective(ctx, "tune", recipe.tune, offset=0), recipe.tune, pixels_N3HW),
        "align": StepTimer(ctx, AlignObjective(ctx, joining=None, aligned=[], offset=0), recipe.align, pixels_N3HW),
    }
    tune = timers["tune"]
    batch = tune.objective.batch(0, 0, recipe.tune.batch)
    features = ctx.encode(batch.samples)

    def language_pass(times: int = 1) -> None:
        """Forward and backward of the language model (and what feeds it) on one packed ``tune`` batch."""
        for _ in range(times):
            out = ctx.model(**batch.packed.model_inputs(), features=features, present=batch.present, use_cache=False)
            out.loss.backward()
            ctx.model.zero_grad(set_to_none=True)

    tune.freeze()
    work = {"language_pass": flops_of(language_pass), "tune_step": 0}
    block = flops_of(lambda: tune.run(steps, cache=True))
    work["tune_step"] = block // steps
    speed: dict[str, dict[bool, list[float]]] = {name: {True: [], False: []} for name in timers}
    looks: list[float] = []
    rates: list[float] = []
    passes: list[float] = []
    # A full queue costs more than an empty one, and is what nearly all steps of a run see.
    timers["align"].run(-(-recipe.contrast.queue // recipe.align.batch) or 1, cache=True)
    for repeat in range(repeats + 1):
        rates.append(gemm_rate(gemm))
        for name, timer in timers.items():
            # Now one first, now the other.
            for cache in (True, False) if repeat % 2 else (False, True):
                speed[name][cache].append(timer.run(steps, cache=cache))
        tune.freeze()
        passes.append(timed(lambda: language_pass(steps)) / steps)
        rows = torch.arange(recipe.align.batch) % len(pixels_N3HW)
        with torch.no_grad():
            looks.append(len(rows) / timed(lambda rows=rows: ctx.model.experts(pixels_N3HW[rows])))  # type: ignore[misc]
        rates.append(gemm_rate(gemm))
    # The first round warms caches and allocators.
    rates, passes, looks = rates[2:], passes[1:], looks[1:]
    around = [(a + b) / 2 for a, b in zip(rates[::2], rates[1::2], strict=True)]
    figures: dict[str, Any] = {}
    for name, timer in timers.items():
        cached, uncached = speed[name][True][1:], speed[name][False][1:]
        figures[f"{name}_step"] = {
            "samples_per_step": timer.batch,
            "cached_samples_per_second": spread(cached, 2),
            "uncached_samples_per_second": spread(uncached, 2),
            "cached_over_uncached": spread([a / b for a, b in zip(cached, uncached, strict=True)]),
        }
    seconds = [tune.batch / each for each in speed["tune"][True][1:]]
    figures["experts_pictures_per_second"] = spread(looks, 1)
    figures["gemm"] = {"size": gemm, "gflops_per_second": spread(rates, 1)}
    for name, spent in (("language_pass", passes), ("tune_step", seconds)):
        reached = [work[name] / each / 1e9 for each in spent]
        figures[f"{name}_of_gemm"] = {
            "gflop": round(work[name] / 1e9, 4),
            "milliseconds": spread([1000 * each for each in spent], 1),
            "gflops_per_second": spread(reached, 1),
            "share": spread([a / b for a, b in zip(reached, around, strict=True)]),
        }
    return figures


def table(figures: dict[str, Any]) -> str:
    """The figures for a person: median, and the range in brackets."""

    def line(label: str, values: dict[str, Any], unit: str = "") -> str:
        return f"  {label:<46}{values['median']:>9} {unit:<10} [{values['min']} .. {values['max']}]"

    lines = []
    for name, what in (
        ("tune_step", "tune step (language model forward and backward)"),
        ("align_step", "align step (language model forward on captions only)"),
    ):
        part = figures[name]
        lines.append(f"{what}, {part['samples_per_step']} pictures")
        lines.append(line("cached features", part["cached_samples_per_second"], "pictures/s"))
        lines.append(line("experts look first", part["uncached_samples_per_second"], "pictures/s"))
        ratio = part["cached_over_uncached"]
        verdict = "reached" if ratio["median"] >= WANTED else "not reached"
        lines.append(line("cached over uncached", ratio, "x") + f"  wanted {WANTED:g}: {verdict}")
    lines.append("processor")
    lines.append(line("all experts, no training", figures["experts_pictures_per_second"], "pictures/s"))
    lines.append(line("fp32 matrix product", figures["gemm"]["gflops_per_second"], "GFLOP/s"))
    for name, what in (("language_pass", "language model forward and backward"), ("tune_step", "whole tune step")):
        part = figures[f"{name}_of_gemm"]
        lines.append(line(f"{what}, {part['gflop']} GFLOP", part["gflops_per_second"], "GFLOP/s"))
        lines.append(line("  share of the matrix product's rate", part["share"]))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write the results; returns what was written."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description="Training speed of the tiny recipe.")
    parser.add_argument("--repeats", type=int, default=7, help="rounds that count")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    parser.add_argument("--parts", type=Path, help="folder of pretrained parts; fresh ones without it")
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps per figure of a round")
    parser.add_argument("--scenes", type=int, default=512, help="pictures that the batches are drawn from")
    parser.add_argument("--gemm", type=int, default=2048, help="rows and columns of the matrix product")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to the recipe")
    chosen = parser.parse_intermixed_args(words)
    for name in ("repeats", "threads", "steps", "scenes", "gemm"):
        if getattr(chosen, name) < 1:
            parser.error(f"--{name} must be at least 1")
    torch.set_num_threads(chosen.threads)
    recipe = load_recipe(Recipe, "tiny", chosen.overrides)
    ctx, pixels = prepare(recipe, chosen.parts, chosen.scenes)
    figures = measure(recipe, ctx, pixels, repeats=chosen.repeats, steps=chosen.steps, gemm=chosen.gemm)
    here = machine()
    results = {
        "command": shlex.join(["python", "benchmarks/train_speed.py", *words]),
        **git_state(),
        "astrea": astrea.__version__,
        **{name: here[name] for name in ("python", "torch", "processor")},
        "threads": chosen.threads,
        "repeats": chosen.repeats,
        "steps_per_repeat": chosen.steps,
        "overrides": chosen.overrides,
        "parts": "fresh" if chosen.parts is None else "pretrained",
        "wanted_ratio": WANTED,
        **figures,
    }
    print(table(figures))
    return write_results(chosen.out, results)


if __name__ == "__main__":
    main()
