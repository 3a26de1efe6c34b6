"""`astrea estimate` against the memory that training really takes: the tiny recipe, stage by stage.

    python benchmarks/estimate.py
    python benchmarks/estimate.py --recipes    # only the estimates of the larger recipes; nothing is measured

Estimate: as `astrea estimate` makes it, without weights. Measurement: the same steps of the same objective with real
tensors, each stage in a process of its own, by the operating system's own count of that process's memory:

* glibc is told to give every block of 32 KiB and more a mapping of its own, so that what is freed is gone at once and
  the resident set is what is in use;
* after two steps (weights, gradients' places, optimizer states and the libraries' workspaces are then there) the
  resident set is read, the kernel's high-water mark is put back to it (``/proc/self/clear_refs``), and two more steps
  run, one of which measures the experts' contributions;
* high-water mark minus resident set before is what a step needs on top: ``step_bytes``. Weights and optimizer states
  are whole tensors, and their bytes are counted.

The kernel counts pages that were touched; nothing in it knows of the estimate's own accounting. A step's memory is
compared, and the whole. Operations are compared with `torch.utils.flop_counter` on the real steps.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from astrea.common.progress import TerminalReporter
from astrea.common.provenance import commit, machine
from astrea.estimate.build import context_of, fake_context
from astrea.estimate.stages import StageCost, fill_queue, stage_cost, with_gradient_checkpointing
from astrea.estimate.table import estimate
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.assembly import assemble
from astrea.training.loop import build_optimizer, run_steps
from astrea.training.trainable import train_only
from astrea.training.trainer import Plan, plan_stages
from process_memory import forget_peak, status_bytes
from result_files import read_results, write_results

RESULTS = Path(__file__).resolve().parent / "results" / "estimate.json"
RECIPES: dict[str, tuple[str, list[str]]] = {
    "small": ("small", []),
    "base": ("base", []),
    "large": ("large", []),
    "large, low rank": (
        "large",
        ["llm.dtype=bfloat16", "llm.low_rank.rank=64", "runtime.llm=replicated", "fuse.batch=4",
         "fuse.accumulate=32", "tune.batch=4", "tune.accumulate=32", "tune.llm_lr_scale=2"],
    ),
}  # fmt: skip
"""What is estimated without being measured: a recipe and changes to it, as its comments propose."""
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 10),
    "MALLOC_TRIM_THRESHOLD_": str(32 << 10),
    "MALLOC_TOP_PAD_": "0",
    "MALLOC_MMAP_MAX_": str(1 << 20),
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
}


def plan_of(recipe: Recipe, stage: str) -> tuple[Plan, int]:
    """A stage of the recipe, and after how many steps it measures contributions."""
    plan = next(plan for plan in plan_stages(recipe) if plan.name == stage)
    return plan, 0 if stage.startswith("align") else recipe.regularisation.contribution_every


def measured(recipe: Recipe, stage: str, *, checkpointing: bool, samples: int) -> dict[str, Any]:
    """Bytes and operations of real steps, in this process."""
    torch.set_num_threads(1)
    model, tokenizer = assemble(recipe, None)
    ctx = context_of(recipe, model, tokenizer, samples=samples)
    with_gradient_checkpointing(ctx, checkpointing)
    plan, every = plan_of(recipe, stage)
    objective = plan.build(ctx)
    modules = (ctx.model, ctx.contrast, ctx.words)
    train_only((parameter for _, parameter, _ in objective.trainable()), modules)
    fill_queue(ctx)
    ctx.model.train()
    optimizer = build_optimizer(objective, plan.schedule)

    def steps(*which: int) -> None:
        for step in which:
            schedule = plan.schedule.model_copy(update={"steps": step + 1})
            run_steps(objective, schedule, optimizer, start=step, on_step=lambda *_: None)
            optimizer.zero_grad(set_to_none=True)

    steps(every, every + 1)
    gc.collect()
    before = status_bytes("VmRSS")
    forget_peak()
    steps(every + 1, every)
    peak = status_bytes("VmHWM")
    with FlopCounterMode(display=False) as counter:
        steps(every + 1)
    states = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    weights = [t for module in modules for t in (*module.parameters(), *module.buffers())]
    storages = [tensor.untyped_storage() for tensor in (*weights, *states)]
    return {
        "step_bytes": peak - before,
        "standing_bytes": sum({s.data_ptr(): s.nbytes() for s in storages}.values()),
        "plain_step_flops": counter.get_total_flops(),
    }


def in_own_process(stage: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """`measured` in a fresh process under the allocator's settings."""
    words = [sys.executable, __file__, "--measure", stage, "--samples", str(chosen.samples), *chosen.overrides]
    words += ["--gradient-checkpointing"] if chosen.gradient_checkpointing else []
    done = subprocess.run(words, env=os.environ | ALLOCATOR, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring {stage} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(cost: StageCost, plain_flops: int, found: dict[str, Any]) -> dict[str, Any]:
    """Estimate, measurement and ratio of a stage."""
    standing = cost.memory["weights"] + cost.memory["optimizer"]
    step, whole = cost.peak - standing, found["step_bytes"] + found["standing_bytes"]
    return {
        "batch": cost.batch,
        "estimate": {"step_bytes": step, "peak_bytes": cost.peak, "by_kind": cost.memory,
                     "plain_step_flops": plain_flops},
        "measured": {**found, "peak_bytes": whole},
        "ratio": {
            # A small step may fit into memory that the process had before.
            "step_bytes": round(step / found["step_bytes"], 4) if found["step_bytes"] else None,
            "peak_bytes": round(cost.peak / whole, 4),
            "plain_step_flops": round(plain_flops / found["plain_step_flops"], 6),
        },
    }  # fmt: skip


def estimated(chosen: Sequence[str]) -> dict[str, Any]:
    """The estimates of some of `RECIPES`."""
    found: dict[str, Any] = {"command": "python benchmarks/estimate.py --recipes", "commit": commit(), "recipes": {}}
    for name in chosen:
        recipe, overrides = RECIPES[name]
        with TerminalReporter() as report:
            cost = estimate(load_recipe(Recipe, recipe, overrides), report=report)
        figures = {key: value for key, value in cost.as_dict().items() if key != "gpus"}
        found["recipes"][name] = figures | {"overrides": overrides}
    return found


def keep_estimates(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Put estimates beside what the file holds already; returns all of it."""
    results = read_results(path)
    made, before = estimated(names), results.get("estimated", {})
    results["estimated"] = made | {"recipes": before.get("recipes", {}) | made["recipes"]}
    return write_results(path, results)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Estimate, measure, print, and write the results; returns what was written."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description="Estimated against measured memory.")
    parser.add_argument("--stages", nargs="+", default=[], help="all of the recipe's where none is named")
    parser.add_argument("--samples", type=int, default=128, help="pictures that the batches are drawn from")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    parser.add_argument("--measure", metavar="STAGE", help="only measure this stage, in this process, and print it")
    parser.add_argument(
        "--recipes", nargs="*", metavar="NAME", help=f"estimate these instead, or all: {'; '.join(RECIPES)}"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to the recipe")
    chosen = parser.parse_intermixed_args(words)
    if chosen.recipes is not None:
        if unknown := [name for name in chosen.recipes if name not in RECIPES]:
            parser.error(f"no estimate is called {unknown[0]!r}; there are {'; '.join(RECIPES)}")
        return keep_estimates(chosen.out, chosen.recipes or list(RECIPES))
    recipe = load_recipe(Recipe, "tiny", chosen.overrides)
    if chosen.measure:
        found = measured(recipe, chosen.measure, checkpointing=chosen.gradient_checkpointing, samples=chosen.samples)
        print(json.dumps(found))
        return found
    names = [plan.name for plan in plan_stages(recipe)]
    unknown = [stage for stage in chosen.stages if stage not in names]
    if unknown:
        parser.error(f"the recipe has no stage {unknown[0]!r}; it has {', '.join(names)}")
    ctx = fake_context(recipe, samples=chosen.samples)
    with_gradient_checkpointing(ctx, chosen.gradient_checkpointing)
    stages: dict[str, Any] = {}
    for stage in chosen.stages or names:
        plan, every = plan_of(recipe, stage)
        cost = stage_cost(ctx, plan, every=every)
        stages[stage] = compare(cost, cost.plain_step_flops, in_own_process(stage, chosen))
        row = stages[stage]
        ratio = row["ratio"]
        alone = "-" if ratio["step_bytes"] is None else f"{ratio['step_bytes']:.3f}"  # nothing on top
        print(
            f"{stage:<16} estimate {row['estimate']['peak_bytes'] / 1e6:8.1f} MB  "
            f"measured {row['measured']['peak_bytes'] / 1e6:8.1f} MB  ratio {ratio['peak_bytes']:.3f}  "
            f"(a step alone {alone}, operations {ratio['plain_step_flops']:.3f})"
        )
    results = read_results(chosen.out) | {
        "command": shlex.join(["python", "benchmarks/estimate.py", *words]),
        "commit": commit(),
        "machine": machine(),
        "overrides": chosen.overrides,
        "gradient_checkpointing": chosen.gradient_checkpointing,
        "stages": stages,
    }
    return write_results(chosen.out, results)


if __name__ == "__main__":
    main()
