"""An estimate of a whole recipe, as a value, for a program and for a person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from astrea.config import Run
from astrea.estimate.build import absent_workshop
from astrea.estimate.gpus import GPUS, Gpu, needed, seconds, smallest
from astrea.estimate.ledger import KINDS
from astrea.estimate.precision import computes_low
from astrea.estimate.stages import StageCost, looking_flops, stage_cost, with_gradient_checkpointing
from astrea.progress import Reporter
from astrea.training.run import plan_stages
from astrea.training.workshop import Workshop


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a recipe costs. parameters: (all, those that learn in some stage) by part. look_flops: of the experts, per
    picture. half: the language model computes in half precision."""

    recipe: str
    parameters: dict[str, tuple[int, int]]
    look_flops: float
    stages: list[StageCost]
    half: bool
    checkpointing: bool
    utilisation: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "recipe": self.recipe,
            "parameters": {name: {"total": a, "trainable": b} for name, (a, b) in self.parameters.items()},
            "look_flops_per_picture": self.look_flops,
            "gradient_checkpointing": self.checkpointing,
            "utilisation": self.utilisation,
            "rate": "bf16" if self.half else "fp32",
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
    run: Run, *, checkpointing: bool | None = None, utilisation: float = 0.35, report: Reporter | None = None
) -> Estimate:
    """What a recipe costs, computed without weights on any machine.

    Args:
        checkpointing: gradient checkpointing of the language model; None = as the recipe says.
        utilisation: share of a GPU's dense rate that training reaches.

    Raises:
        AstreaError: as `astrea.estimate.build.absent_workshop` does.
    """
    report = report or Reporter()
    shop = absent_workshop(run)
    if checkpointing is None:
        checkpointing = run.language.gradient_checkpointing
    with_gradient_checkpointing(shop, checkpointing)
    stages = costs(shop, report)
    return Estimate(
        recipe=run.name,
        parameters=parameters(shop),
        look_flops=looking_flops(shop),
        stages=stages,
        half=run.language.dtype != "float32" or computes_low(run.machines),
        checkpointing=checkpointing,
        utilisation=utilisation,
    )


def costs(shop: Workshop, report: Reporter) -> list[StageCost]:
    """Every stage; of align's phases, which are much alike, the last with one expert and the last of all."""
    plans = plan_stages(shop.run)
    phases = [plan for plan in plans if plan.name.startswith("align")]
    plans = [plan for plan in plans if plan not in phases[:-2]]
    found = []
    for number, plan in enumerate(plans, 1):
        every = 0 if plan.name.startswith("align") else shop.run.regular.contribution_every
        found.append(stage_cost(shop, plan, every=every))
        report.track("estimating", number, len(plans), plan.name)
    return found


def parameters(shop: Workshop) -> dict[str, tuple[int, int]]:
    """Parameters by part: (all, those that learn in some stage of the recipe)."""
    model, run = shop.model, shop.run
    learns: set[int] = set()
    for plan in plan_stages(run):
        learns |= {id(parameter) for _, parameter, _ in plan.build(shop).trainable()}
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
    """Tables for a person."""
    sizes = Table("part", title=f"Parameters of {found.recipe}", title_justify="left")
    work = Table("stage", title="Work per sample", title_justify="left")
    memory = Table("stage", title="Memory at the peak, one device", title_justify="left")
    for table, columns in (
        (sizes, ("all", "learn")),
        (work, ("batch", "learning", "forward", "training step")),
        (memory, (*KINDS, "peak", "smallest GPU", "s per 1,000 samples")),
    ):
        for column in columns:
            table.add_column(column, justify="right")
    for name, (every, learning) in found.parameters.items():
        sizes.add_row(name, _count(every), _count(learning))
    sizes.add_row("all together", *(_count(sum(row[i] for row in found.parameters.values())) for i in (0, 1)))
    for stage in found.stages:
        gpu = smallest(stage.peak)
        work.add_row(
            stage.name,
            str(stage.batch),
            _count(stage.trainable),
            f"{_count(stage.forward_flops)}FLOP",
            f"{_count(stage.step_flops)}FLOP",
        )
        memory.add_row(
            stage.name,
            *(_bytes(stage.memory[kind]) for kind in KINDS),
            _bytes(stage.peak),
            "none" if gpu is None else gpu.name,
            "-" if gpu is None else f"{found.per_thousand(stage, gpu):.3g}",
        )
    note = (
        f"The experts look once per picture: {_count(found.look_flops)}FLOP. Gradient checkpointing "
        f"{'on' if found.checkpointing else 'off'}. Time at {found.utilisation:.0%} of the dense "
        f"{'bf16' if found.half else 'fp32'} rate; small models reach far less. A GPU must hold the peak, "
        "10 % more and 1 GB."
    )
    return Group(sizes, work, memory, Text(note))


def _fits(stage: StageCost, gpu: Gpu) -> bool:
    return gpu.memory * 10**9 >= needed(stage.peak)


def _count(number: float) -> str:
    """1234567 -> '1.23 M'."""
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g} "


def _bytes(number: int) -> str:
    return f"{_count(number)}B"
