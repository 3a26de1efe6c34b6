"""The one training loop. It knows nothing of models: an `Objective` gives batches and losses, the loop does the rest.

Everything random in a step is a function of (seed, stage, step, micro-step), so a run that continues from a checkpoint
sees exactly what the uninterrupted run would have seen. A batch is counted over all processes: each computes its part
of the batch's loss, and parts add up (see `astrea.training.distributed`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from astrea.common.errors import AstreaError
from astrea.recipes.recipe import Schedule
from astrea.training.distributed import SINGLE, Distributed
from astrea.training.fsdp import clip_gradients
from astrea.training.optimizer import MuonAdamW
from astrea.training.prefetch import prefetch


class Objective(ABC):
    """What a stage learns and from what. The loop never looks inside."""

    @abstractmethod
    def trainable(self) -> Iterable[tuple[str, nn.Parameter, float]]:
        """(name, parameter, learning-rate scale) of everything that learns in this stage."""

    @property
    def idle(self) -> bool:
        """Whether no step would teach anything, so that none need be taken; the same on every process."""
        return False

    def is_hidden(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether a parameter is a matrix between hidden states of the language model (neither words nor heads)."""
        return False

    @abstractmethod
    def batch(self, step: int, micro: int, size: int) -> Any:
        """The batch of a micro-step: a pure function of its arguments and the seed."""

    @abstractmethod
    def loss(self, batch: Any, step: int) -> tuple[Tensor, dict[str, float]]:
        """Scalar loss with gradient, and figures to log: this process's part of them, where there are several."""

    def after_step(self, step: int) -> None:  # noqa: B027 - most objectives keep nothing between steps
        """Called once the weights have moved: moving averages, queues, load biases."""

    def describe(self, batch: Any) -> str:
        """Names the samples of a batch, for the NaN guard's message."""
        return "unnamed samples"


def build_optimizer(objective: Objective, schedule: Schedule) -> MuonAdamW:
    """One group per (learning-rate scale, decay or not, Muon or not); vectors and scalars do not decay."""
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for name, parameter, scale in objective.trainable():
        muon = schedule.muon > 0 and objective.is_hidden(name, parameter)
        groups.setdefault((scale * (schedule.muon if muon else 1.0), parameter.ndim > 1, muon), []).append(parameter)
    if not groups:
        raise AstreaError("this stage has nothing to train", "give the stage at least one trainable part")
    return MuonAdamW(
        [
            {"params": params, "scale": scale, "weight_decay": schedule.weight_decay if decays else 0.0, "muon": muon}
            for (scale, decays, muon), params in groups.items()
        ],
        lr=schedule.lr,
        betas=(0.9, 0.98),
        foreach=True,
    )


def run_steps(
    objective: Objective,
    schedule: Schedule,
    optimizer: torch.optim.Optimizer,
    *,
    start: int = 0,
    on_step: Callable[[int, dict[str, float]], object],
    ranks: Distributed = SINGLE,
) -> float:
    """Run optimizer steps ``start .. schedule.steps``; ``on_step(step, figures)`` after each: where it
    says True, this was the last one; it may raise to stop.

    Returns:
        The seconds that steps have waited for their batches.

    Raises:
        AstreaError: the loss or a gradient is NaN or infinite; names the step and the samples.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    order = (
        (step, micro, schedule.batch) for step in range(start, schedule.steps) for micro in range(schedule.accumulate)
    )
    with prefetch(objective.batch, order) as batches:
        for step in range(start, schedule.steps):
            lr = schedule.lr_at(step)
            for group in optimizer.param_groups:
                group["lr"] = lr * group["scale"]
            optimizer.zero_grad(set_to_none=True)
            figures: dict[str, float] = {}
            names = []
            for micro in range(schedule.accumulate):
                batch = batches.next()
                loss, part = objective.loss(batch, step)
                names.append(objective.describe(batch))
                whole = ranks.total({"loss": loss.item(), **part})
                if not math.isfinite(whole["loss"]):
                    raise AstreaError(
                        f"the loss is {whole['loss']} at step {step}, micro-step {micro} (batch: {names[-1]}; {whole})",
                        "lower the learning rate, or look at these samples; the last checkpoint is untouched",
                    )
                if loss.requires_grad:  # text without pictures may reach nothing that learns
                    (loss / schedule.accumulate).backward()
                for key, value in whole.items():
                    figures[key] = figures.get(key, 0.0) + value / schedule.accumulate
            ranks.add_gradients(parameters)
            norm = clip_gradients(parameters, schedule.clip)
            if not torch.isfinite(norm):
                raise AstreaError(
                    f"the gradient is {norm.item()} at step {step} (batch: {'; '.join(names)})",
                    "lower the learning rate, or look at these samples; the last checkpoint is untouched",
                )
            optimizer.step()
            objective.after_step(step)
            if on_step(step, figures | {"lr": lr, "grad_norm": float(norm)}) is True:
                break
        return batches.waited
