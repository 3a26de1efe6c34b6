"""One training stage, run for a few steps without numbers: what it multiplies and what memory it takes.

The steps are those of training itself (`run_steps` on the stage's own objective), not a model of them. The first
creates the optimizer's states and is not counted. Of the rest one measures the experts' contributions, if the stage
does that now and then; memory is the most that any step takes, operations are averaged as they fall. Of the micro-steps
of a step two are run, the second of which meets gradients that are there already, and stand for all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from astrea.common.errors import AstreaError
from astrea.estimate.fake_tensors import fake_tensors
from astrea.estimate.precision import computes_low, lowered, recomputing
from astrea.estimate.tracker import KINDS, MemoryTracker
from astrea.training.context import TrainingContext
from astrea.training.loop import Objective, build_optimizer, run_steps
from astrea.training.plan import Plan
from astrea.training.trainable import train_only


@dataclass(frozen=True, slots=True)
class StageCost:
    """What a stage costs on one device.

    batch: samples per micro-step. samples: all that the stage sees. trainable: parameters that learn.
    forward_flops, step_flops: per sample; the second with backward pass, optimizer and what is measured now and then.
    plain_step_flops: of a whole optimizer step in which contributions are not measured.
    memory: bytes by kind (`astrea.estimate.tracker.KINDS`) at the moment when most is in use. moving: those of them in
    small blocks that come and go with every step.
    """

    name: str
    batch: int
    samples: int
    trainable: int
    forward_flops: float
    step_flops: float
    plain_step_flops: int
    memory: dict[str, int]
    moving: int = 0

    @property
    def peak(self) -> int:
        """Bytes in use when most are."""
        return sum(self.memory.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"peak": self.peak}


class _Watched(Objective):
    """An objective whose forward passes are counted apart, and whose activations are known as such."""

    def __init__(self, inner: Objective, tracker: MemoryTracker) -> None:
        self.inner, self.tracker = inner, tracker
        self.forward = 0

    def trainable(self) -> Iterable[tuple[str, nn.Parameter, float]]:
        return self.inner.trainable()

    def is_hidden(self, name: str, parameter: nn.Parameter) -> bool:
        return self.inner.is_hidden(name, parameter)

    def batch(self, step: int, micro: int, size: int) -> Any:
        return self.inner.batch(step, micro, size)

    def loss(self, batch: Any, step: int) -> tuple[Tensor, dict[str, float]]:
        before = self.tracker.flops
        with self.tracker.saving():
            found = self.inner.loss(batch, step)
        self.forward += self.tracker.flops - before
        return found

    def after_step(self, step: int) -> None:
        self.inner.after_step(step)


class _Span:
    """Operations while something goes on, now and then."""

    def __init__(self, tracker: MemoryTracker) -> None:
        self.tracker = tracker
        self.flops, self.started = 0, 0

    def begin(self, *_: Any) -> None:
        self.started = self.tracker.flops

    def end(self, *_: Any) -> None:
        self.flops += self.tracker.flops - self.started


def stage_cost(ctx: TrainingContext, plan: Plan, *, every: int = 0) -> StageCost:
    """What one stage costs. The context's model has no numbers (`astrea.estimate.build`), or has them all.

    Args:
        every: steps between measurements of the experts' contributions; 0 = never.
    """
    with MemoryTracker() as tracker, fake_tensors(), lowered(ctx.model.language_model, computes_low_here(ctx)):
        inner = plan.build(ctx)
        objective = _Watched(inner, tracker)
        learns = {id(parameter): parameter for _, parameter, _ in objective.trainable()}
        modules = (ctx.model, ctx.contrast, ctx.words)
        train_only(learns.values(), modules)
        fill_queue(ctx)
        tracker.adopt(_state_of(modules), "weights")
        handles = [
            parameter.register_post_accumulate_grad_hook(lambda p: tracker.adopt([p.grad], "gradients"))
            for parameter in learns.values()
        ]
        ctx.model.train()
        optimizer = build_optimizer(objective, plan.schedule)

        micros, updating = plan.schedule.accumulate, _Span(tracker)
        optimizer.register_step_pre_hook(updating.begin)
        optimizer.register_step_post_hook(updating.end)

        def steps(number: int, *, micro: int) -> tuple[float, float]:
            """Operations of one step, of which so many micro-steps are run: (all, forward)."""
            before, forward, updates = tracker.flops, objective.forward, updating.flops
            schedule = plan.schedule.model_copy(update={"steps": number + 1, "accumulate": micro})
            run_steps(objective, schedule, optimizer, start=number, on_step=lambda *_: None)
            once = updating.flops - updates
            scale = micros / micro
            return (tracker.flops - before - once) * scale + once, (objective.forward - forward) * scale

        # The optimizer's first step makes its states; what is needed at most is seen once they are there.
        plain = steps(every + 1, micro=min(2, micros))
        tracker.adopt(_tensors_in(optimizer), "optimizer")
        tracker.adopt(_state_of(modules), "weights")
        tracker.forget_peak()
        later = steps(every or 1, micro=min(2, micros))
        rare = later if every else plain
        memory, moving = {kind: tracker.at_peak[kind] for kind in KINDS}, tracker.moving
        for handle in handles:
            handle.remove()
        for parameter in learns.values():
            parameter.grad = None
    share = 1 / every if every else 0.0
    size = plan.schedule.batch * plan.schedule.accumulate
    average = [(b * share + a * (1 - share)) / size for a, b in zip(plain, rare, strict=True)]
    return StageCost(
        name=plan.name,
        batch=plan.schedule.batch,
        samples=plan.schedule.steps * size,
        trainable=sum(parameter.numel() for parameter in learns.values()),
        forward_flops=average[1],
        step_flops=average[0],
        plain_step_flops=round(plain[0]),
        memory=memory,
        moving=moving,
    )


def looking_flops(ctx: TrainingContext, pictures: int = 8) -> float:
    """Operations of all experts together per picture; training pays for them once, the features are kept."""
    size = ctx.model.config.image_size
    with MemoryTracker() as tracker, fake_tensors(), torch.no_grad():
        ctx.model.encode_images(torch.empty(pictures, 3, size, size, device="meta"))
    found: float = tracker.flops / pictures
    return found


def with_gradient_checkpointing(ctx: TrainingContext, wanted: bool) -> None:
    """Let the language model compute its inner states twice instead of keeping them, or keep them.

    Raises:
        AstreaError: this language model cannot.
    """
    # transformers has renamed it, and warns of the old names.
    language = ctx.model.language_model
    kind = "activation" if hasattr(language, "activation_checkpointing_enable") else "gradient"
    if not wanted:
        if getattr(language, f"is_{kind}_checkpointing"):
            getattr(language, f"{kind}_checkpointing_disable")()
        return
    if not language.supports_gradient_checkpointing:
        raise AstreaError("this language model has no gradient checkpointing", "estimate without it")
    # Chance has no state on a device without numbers.
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if computes_low_here(ctx):
        options["context_fn"] = recomputing
    getattr(language, f"{kind}_checkpointing_enable")(options)


def computes_low_here(ctx: TrainingContext) -> bool:
    """Whether bfloat16 is to be made believe; with numbers torch's own autocast is there for whoever wants it."""
    return ctx.model.device.type == "meta" and computes_low(ctx.recipe.runtime)


def fill_queue(ctx: TrainingContext) -> None:
    """Let the momentum contrast's queue be full, as it is in nearly all steps of a run."""
    queue = ctx.contrast.queue
    queue.ids = torch.arange(2 * queue.size).view(queue.size, 2) + (1 << 40)


def _state_of(modules: Iterable[nn.Module]) -> list[Tensor]:
    return [tensor for module in modules for part in (module.parameters(), module.buffers()) for tensor in part]


def _tensors_in(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    states = optimizer.state.values()
    return [tensor for state in states for tensor in state.values() if isinstance(tensor, Tensor)]
