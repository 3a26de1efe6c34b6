"""Fusing and tuning: the losses of the answers, of the recipe and of the fusion strategy, through the whole model.

`fuse` and `tune` differ in what learns. Every strategy is trained by this objective: see `FusionStrategy`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from astrea.data.protocol import sample_names
from astrea.language.low_rank import adapter_parameters, is_adapter
from astrea.recipes.recipe import Stage
from astrea.training.context import TrainingContext
from astrea.training.loop import Objective
from astrea.training.losses.protocol import InstructLoss
from astrea.training.losses.registry import build_losses
from astrea.training.optimizer import is_hidden_matrix
from astrea.training.stages.batch import InstructBatch, draw_batch
from astrea.training.stages.step import InstructStep, step_generator


class InstructObjective(Objective):
    """The objective of the stages ``fuse`` and ``tune``.

    Args:
        offset: micro-steps of earlier stages that read the same stream of samples.
        weights: of the losses; None = as the stage says.
    """

    def __init__(
        self, ctx: TrainingContext, name: str, stage: Stage, *, offset: int, weights: Mapping[str, float] | None = None
    ) -> None:
        self.ctx, self.name, self.stage, self.offset = ctx, name, stage, offset
        self.fusion, self.packer = ctx.model.fusion, ctx.packer
        self.weights = stage.losses.weights if weights is None else weights
        self.losses = build_losses(InstructLoss, self.weights, ctx)  # type: ignore[type-abstract]
        ctx.contrast.queue.clear()

    @property
    def idle(self) -> bool:
        if self.ctx.model.config.findings != "written":
            return False
        # No adapter learns, and of answers the gate learns nothing: it measures contributions.
        by_itself = ("fusion.allocator.", "contrast.")
        learns = any(not name.startswith(by_itself) for name, _, _ in self.trainable())
        return not learns and not self.weights.get("contribution")

    def trainable(self) -> Iterable[tuple[str, nn.Parameter, float]]:
        model, learns = self.ctx.model, self.stage.train
        if "adapters" in learns:
            yield from ((f"adapters.{n}", p, 1.0) for n, p in model.alignment.adapters.named_parameters())
        if "heads" in learns and self.weights.get("itc"):
            for head in ("picture_head", "text_head"):
                yield from ((f"{head}.{n}", p, 1.0) for n, p in getattr(model.alignment, head).named_parameters())
            yield "contrast.log_temperature", self.ctx.contrast.log_temperature, 1.0
        if "fusion" in learns:
            rates = model.fusion.learning_rates
            for name, parameter in model.fusion.named_parameters():
                rate = next((rate for part, rate in rates.items() if name.startswith(part)), 1.0)
                yield f"fusion.{name}", parameter, rate
        if "language_model" in learns:
            scale = self.stage.llm_lr_scale
            language = model.language_model
            # With low-rank tuning the language model's own weights stay as they are.
            own = language.named_parameters() if model.config.low_rank is None else adapter_parameters(language)
            yield from ((f"language_model.{n}", p, scale) for n, p in own)
        if "experts" in learns:
            for name in self.ctx.recipe.learning_experts:
                own = model.experts[name].named_parameters()
                yield from ((f"experts.{name}.{n}", p, self.stage.experts_lr_scale) for n, p in own)

    def is_hidden(self, name: str, parameter: nn.Parameter) -> bool:
        hidden = name.startswith("language_model.") and not is_adapter(name)
        return hidden and is_hidden_matrix(self.ctx.model.language_model, parameter)

    def batch(self, step: int, micro: int, size: int) -> InstructBatch:
        start = (self.offset + step * self.stage.accumulate + micro) * size
        return draw_batch(
            self.ctx,
            self.packer,
            self.name,
            step,
            micro,
            start=start,
            size=size,
            per_question=self.fusion.per_question,
            chats="language_model" in self.stage.train and self.ctx.recipe.data.text_share > 0,
        )

    def loss(self, batch: InstructBatch, step: int) -> tuple[Tensor, dict[str, float]]:
        ctx, fusion = self.ctx, self.fusion
        if (ctx.model.config.low_rank or {}).get("dropout"):
            # peft draws from torch's own generator, so that one is made a function of the step too.
            torch.manual_seed(step_generator(ctx, self.name, "dropout", step, batch.micro).initial_seed())
        here = InstructStep(ctx, self.name, self.stage, self.weights, batch, step)
        fusion.progress(min(1.0, step / max(1, self.stage.steps)) if self.name == "fuse" else 1.0)
        # Before the pass that keeps its activations: the two together would need twice the memory.
        early = fusion.before_forward(here)
        output = here.forward("residual")
        found = {"lm": output.loss} | early | fusion.losses(here, output)
        for name, loss in self.losses.items():
            value = loss(here, output)
            if value is not None:
                found[name] = value
        parts = {name: self.weights.get(name, 1.0) * part for name, part in found.items()}
        return sum(parts.values()), {name: part.item() for name, part in parts.items()} | fusion.figures(here, output)

    def after_step(self, step: int) -> None:
        self.ctx.contrast.follow(self.ctx.model.alignment)
        for loss in self.losses.values():
            loss.after_step()
        self.fusion.after_step(self.ctx.recipe.regularisation)

    def describe(self, batch: InstructBatch) -> str:
        return sample_names(batch.samples)
