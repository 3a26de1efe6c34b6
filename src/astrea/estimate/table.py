"""An estimate of a whole recipe, as a value, for a program and for a person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from astrea.common.progress import Reporter
from astrea.estimate.build import fake_context
from astrea.estimate.gpus import GPUS, Gpu, needed, seconds, smallest
from astrea.estimate.precision import computes_low
from astrea.estimate.process import ProcessCost, process_cost
from astrea.estimate.stages import StageCost, looking_flops, stage_cost, with_gradient_checkpointing
from astrea.estimate.tracker import KINDS
from astrea.recipes.recipe import Recipe
from astrea.training.context import TrainingContext
from astrea.training.plan import plan_stages

BUILDING, STAGES, OTHERWISE = "model without weights", "steps of each stage", "loading, encoding, evaluation"
"""What is being done, for the person who waits."""

DOING = {"loading": "loads", "encoding": "encodes pictures", "training": "trains", "evaluation": "evaluates"}
"""`astrea.estimate.process.PHASES`, for a person."""

OUTSIDE_STAGES = ("encoding", "evaluation")
"""Phases that are no training steps and compute where they do."""

HEADINGS = {"activations": "kept", "temporary": "other"}
"""Short words for some of `KINDS`, so that a table fits a terminal of 80 columns."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a recipe costs. parameters: (all, those that learn in some stage) by part. look_flops: of the experts, per
    picture. half: the language model computes in half precision. process: memory of a whole run's process."""

    recipe: str
    parameters: dict[str, tuple[int, int]]
    look_flops: float
    stages: list[StageCost]
    half: bool
    checkpointing: bool
    utilisation: float
    process: ProcessCost

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "recipe": self.recipe,
            "parameters": {name: {"total": a, "trainable": b} for name, (a, b) in self.parameters.items()},
            "look_flops_per_picture": self.look_flops,
            "gradient_checkpointing": self.checkpointing,
            "utilisation": self.utilisation,
            "rate": "bf16" if self.half else "fp32",
            "process": self.process.as_dict(),
            "stages": [
                stage.as_dict()
                | {
                    "gpu_bytes": needed(stage.peak),
                    "smallest_gpu": None if (gpu := smallest(stage.peak)) is None else gpu.name,
                    "seconds_per_1000_samples": {g.name: self.per_thousand(stage, g) for g in GPUS if _fits(stage, g)},
                }
                for stage in self.stages
            ],
            "gpus": {g.name: {"gb": g.memory, "bf16": g.bf16, "fp32": g.fp32, "source": g.source} for g in GPUS},
        }

    def per_thousand(self, stage: StageCost, gpu: Gpu) -> float:
        """Seconds for 1,000 samples of a stage."""
        return seconds(1000 * stage.step_flops, gpu, half=self.half, utilisation=self.utilisation)


def estimate(
    recipe: Recipe, *, checkpointing: bool | None = None, utilisation: float = 0.35, report: Reporter | None = None
) -> Estimate:
    """What a recipe costs, computed without weights on any machine.

    Args:
        checkpointing: gradient checkpointing of the language model; None = as the recipe says.
        utilisation: share of a GPU's dense rate that training reaches.

    Raises:
        AstreaError: as `astrea.estimate.build.fake_context` does.
    """
    report = report or Reporter()
    report.track(BUILDING, 0, 1)
    ctx = fake_context(recipe)
    report.track(BUILDING, 1, 1)
    if checkpointing is None:
        checkpointing = recipe.llm.gradient_checkpointing
    with_gradient_checkpointing(ctx, checkpointing)
    stages = costs(ctx, report)
    report.track(OTHERWISE, 0, 1)
    process = process_cost(ctx, stages)
    report.track(OTHERWISE, 1, 1)
    return Estimate(
        recipe=recipe.name,
        parameters=parameters(ctx),
        look_flops=looking_flops(ctx),
        stages=stages,
        half=recipe.llm.dtype != "float32" or computes_low(recipe.runtime),
        checkpointing=checkpointing,
        utilisation=utilisation,
        process=process,
    )


def costs(ctx: TrainingContext, report: Reporter) -> list[StageCost]:
    """Every stage; of align's phases, which are much alike, the last with one expert and the last of all."""
    plans = plan_stages(ctx.recipe)
    phases = [plan for plan in plans if plan.name.startswith("align")]
    plans = [plan for plan in plans if plan not in phases[:-2]]
    found = []
    for number, plan in enumerate(plans):
        report.track(STAGES, number, len(plans), plan.name)
        every = 0 if plan.name.startswith("align") else ctx.recipe.regularisation.contribution_every
        found.append(stage_cost(ctx, plan, every=every))
    report.track(STAGES, len(plans), len(plans))
    return found


def parameters(ctx: TrainingContext) -> dict[str, tuple[int, int]]:
    """Parameters by part: (all, those that learn in some stage of the recipe)."""
    model, run = ctx.model, ctx.recipe
    learns: set[int] = set()
    for plan in plan_stages(run):
        learns |= {id(parameter) for _, parameter, _ in plan.build(ctx).trainable()}
    parts = {
        **{f"expert {name}": model.experts[name] for name in model.experts.names},
        **{f"adapter {name}": model.alignment.adapters[name] for name in model.experts.names},
        "picture head": model.alignment.picture_head,
        "text head": model.alignment.text_head,
        "fusion": model.fusion,
        "language model": model.language_model,
    }
    return {
        name: (
            sum(p.numel() for p in part.parameters()),
            sum(p.numel() for p in part.parameters() if id(p) in learns),
        )
        for name, part in parts.items()
    }


def for_terminal(found: Estimate) -> Group:
    """Tables for a person, 80 columns wide at most."""
    sizes = _table("part", f"Parameters of {found.recipe}", "all", "learn")
    work = _table("stage", "Work per sample", "batch", "learning", "forward", "training step")
    memory = _table("stage", "Memory at the peak, one device", *(HEADINGS.get(kind, kind) for kind in KINDS), "peak")
    rented = _table("stage", "Smallest GPU that holds it", "needed", "GPU", "s per 1,000 samples")
    process = _table("while it", "The processor's memory, of the whole process", "GB")
    for name, (every, learns) in found.parameters.items():
        sizes.add_row(name, short_count(every), short_count(learns))
    sizes.add_row("all together", *(short_count(sum(row[i] for row in found.parameters.values())) for i in (0, 1)))
    for stage in found.stages:
        gpu = smallest(stage.peak)
        learning, flops = short_count(stage.trainable), (stage.forward_flops, stage.step_flops)
        work.add_row(stage.name, str(stage.batch), learning, *(f"{short_count(number)}FLOP" for number in flops))
        memory.add_row(stage.name, *(_bytes(stage.memory[kind]) for kind in KINDS), _bytes(stage.peak))
        time = "-" if gpu is None else f"{found.per_thousand(stage, gpu):.3g}"
        rented.add_row(stage.name, _bytes(needed(stage.peak)), "none" if gpu is None else gpu.name, time)
    cost = found.process
    for phase, doing in DOING.items():
        process.add_row(doing, f"{cost.resident(phase) / 1e9:.2f}")
        if cost.on_gpu and phase in OUTSIDE_STAGES:
            peak = getattr(cost, phase).tensors
            rented.add_row(doing, _bytes(needed(peak)), "none" if (gpu := smallest(peak)) is None else gpu.name, "-")
    note = (
        f"The experts look once per picture: {short_count(found.look_flops)}FLOP. Gradient checkpointing "
        f"{'on' if found.checkpointing else 'off'}. Kept: activations for the backward pass; other: logits and what "
        f"operations hand to each other. Time at {found.utilisation:.0%} of the dense "
        f"{'bf16' if found.half else 'fp32'} rate; small models reach far less. A GPU must hold the peak, 10 % more "
        "and 1 GB. " + ("All but loading is on a GPU." if cost.on_gpu else "All on the processor.")
    )
    return Group(sizes, work, memory, rented, process, Text(note))


def _table(first: str, title: str, *columns: str) -> Table:
    table = Table(first, title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _fits(stage: StageCost, gpu: Gpu) -> bool:
    return gpu.memory * 10**9 >= needed(stage.peak)


def short_count(number: float) -> str:
    """1234567 -> '1.23 M'; a unit may follow directly, for below a thousand it is '912 '."""
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g} "


def _bytes(number: int) -> str:
    return f"{short_count(number)}B"
