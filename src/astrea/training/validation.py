"""The loss on held-out data while training goes on, and the weights with which it was lowest.

Measuring changes nothing that training goes by: no gradient, no random state, no running figure.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from astrea.data.streaming import FileDataset
from astrea.experts.protocol import index_select
from astrea.training.checkpoint import load_checkpoint, save_checkpoint
from astrea.training.context import TrainingContext
from astrea.training.identity import config_hash
from astrea.training.resume import snapshot
from astrea.training.stages.batch import packed_rows

STAGES = ("fuse", "tune")
FIGURE = "validation"
"""What a step's line in train.jsonl calls the loss."""

DRAW = 0
"""Seed of the draw of records, which is the same at every measurement and in every run."""


class Validation:
    """Measures a run's held-out loss, and keeps the weights of `tune` with the lowest one where that is wanted.

    Args:
        ctx: the run's. data: held out. folder: where the best weights are kept.

    Attributes:
        seconds: spent here so far, which are none of training's.
    """

    def __init__(self, ctx: TrainingContext, data: FileDataset, folder: Path) -> None:
        self.ctx, self.data, self.folder = ctx, data, folder
        self.seconds = 0.0
        found = load_checkpoint(folder, config_hash=config_hash(ctx.recipe), on_warning=lambda text: None)
        self.lowest = float("inf") if found is None else float(found.state["validation"])

    def figures(self, stage: str, done: int, steps: int, at: int) -> dict[str, float]:
        """The loss, after the steps at which it is due; all ranks must ask.

        Args:
            done: optimizer steps of the stage so far, of ``steps``; ``at``: of the whole run.
        """
        every = self.ctx.recipe.data.validation_every
        if stage not in STAGES or (done % every and done != steps):
            return {}
        started = time.perf_counter()
        loss = self.loss()
        if stage == "tune" and self.ctx.recipe.data.keep_best and loss < self.lowest:
            self.lowest = loss
            weights = snapshot(self.ctx)["model"]
            if self.ctx.ranks.is_main:
                kept = {"validation": loss, "step": done}
                save_checkpoint(
                    self.folder, at, {"model": weights}, kept, config_hash=config_hash(self.ctx.recipe), keep=1
                )
            self.ctx.ranks.wait()
        self.seconds += time.perf_counter() - started
        return {FIGURE: loss}

    @torch.no_grad()
    def loss(self) -> float:
        """Mean loss per answer token, as training weighs them, with every expert there."""
        model, ranks = self.ctx.model, self.ctx.ranks
        size = max(ranks.world, min(self.ctx.recipe.tune.batch, len(self.data)))
        rounds = max(1, min(self.ctx.recipe.data.validation_records, len(self.data)) // size)
        total = weight = 0.0
        model.eval()
        with torch.random.fork_rng(devices=[]):
            for number in range(rounds):
                part, labelled = self._part(number * size, size)
                total += ranks.total({"loss": part})["loss"]
                weight += labelled
        model.train()
        return total / max(weight, 1e-9)

    def _part(self, position: int, size: int) -> tuple[float, float]:
        """This process's part of the summed loss of some records, and the weight of all their answers' tokens."""
        ctx = self.ctx
        samples = self.data.draw(position, size, DRAW)
        which = torch.zeros(size, dtype=torch.long)
        rows = self.data.pack(ctx.packer, samples, which, per_question=ctx.model.fusion.per_question)
        labelled = rows.labelled
        own = ctx.ranks.local_slice(len(rows.groups))
        shown = rows.shown[rows.shown_in(own)]
        seen = ctx.encode_trainable(samples, learning=False)
        inputs = packed_rows(rows.packed, own).model_inputs()
        out = ctx.model(
            **{name: value.to(ctx.ranks.device) for name, value in inputs.items()},
            features=index_select(seen, shown) if len(shown) else None,
            num_items_in_batch=labelled,
            use_cache=False,
        )
        return float(out.loss) * labelled, labelled

    def take_best(self) -> str | None:
        """Give the model the weights with the lowest loss, if any were kept; says which."""
        recipe = self.ctx.recipe
        found = load_checkpoint(self.folder, config_hash=config_hash(recipe), on_warning=lambda text: None)
        if not recipe.data.keep_best or found is None:
            return None
        self.ctx.model.load_state_dict(found.tensors["model"], strict=False)
        return f"the model is that of step {found.state['step']} of tune: validation loss {self.lowest:.4f}"
