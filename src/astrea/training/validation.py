"""Loss and accuracy on held-out data while training goes on, the weights with which the loss was lowest, and when to
stop because it falls no more.

Measuring changes nothing that training goes by: no gradient, no random state, no running figure.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from astrea.data.packing import answers_right
from astrea.data.streaming import FileDataset
from astrea.experts.protocol import index_select
from astrea.training.checkpoint import load_checkpoint, save_checkpoint
from astrea.training.context import TrainingContext
from astrea.training.identity import config_hash
from astrea.training.resume import snapshot
from astrea.training.stages.batch import packed_rows

STAGES = ("fuse", "tune")
FIGURE, RIGHT, SINCE = "validation", "validation_accuracy", "validation_since_best"
"""What a step's line in train.jsonl calls the loss, the share of answers that are right word for word (each token the
likeliest behind the right ones before it), and, with patience, the measurements since the loss was lowest."""

DRAW = 0
"""Seed of the draw of records, which is the same at every measurement and in every run."""


class Measured(NamedTuple):
    """loss: mean per answer token, as training weighs them. accuracy: share of the answers that are right."""

    loss: float
    accuracy: float


class Validation:
    """Measures a run's held-out loss, keeps the weights of `tune` with the lowest one where that is wanted, and says
    when `tune` is to end (``data.patience``).

    Args:
        ctx: the run's. data: held out. folder: where the best weights are kept.

    Attributes:
        seconds: spent here so far, which are none of training's.
        reached: the lowest loss of `tune`, None before it. since: measurements of `tune` after that one.
    """

    def __init__(self, ctx: TrainingContext, data: FileDataset, folder: Path) -> None:
        self.ctx, self.data, self.folder = ctx, data, folder
        self.seconds = 0.0
        found = load_checkpoint(folder, config_hash=config_hash(ctx.recipe), on_warning=lambda text: None)
        self.lowest = float("inf") if found is None else float(found.state["validation"])
        self.reached: float | None = None
        self.since = 0

    @property
    def enough(self) -> bool:
        """Whether the loss has not fallen for as many measurements as the recipe has patience."""
        patience = self.ctx.recipe.data.patience
        return patience is not None and self.since >= patience

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"reached": self.reached, "since": self.since}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.reached, self.since = state["reached"], int(state["since"])

    def figures(self, stage: str, done: int, steps: int, at: int) -> dict[str, float]:
        """Loss and accuracy, after the steps at which they are due; all ranks must ask.

        Args:
            done: optimizer steps of the stage so far, of ``steps``; ``at``: of the whole run.
        """
        every = self.ctx.recipe.data.validation_every
        if stage not in STAGES or (done % every and done != steps):
            return {}
        started = time.perf_counter()
        loss, accuracy = self.measure()
        found = {FIGURE: loss, RIGHT: accuracy}
        if stage == "tune" and self.ctx.recipe.data.patience is not None:
            falls = self.reached is None or loss < self.reached
            self.reached, self.since = (loss, 0) if falls else (self.reached, self.since + 1)
            found[SINCE] = float(self.since)
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
        return found

    @torch.no_grad()
    def measure(self) -> Measured:
        """The figures of the records that are drawn, with every expert there."""
        model, ranks = self.ctx.model, self.ctx.ranks
        size = max(ranks.world, min(self.ctx.recipe.tune.batch, len(self.data)))
        rounds = max(1, min(self.ctx.recipe.data.validation_records, len(self.data)) // size)
        total = weight = right = answers = 0.0
        model.eval()
        with torch.random.fork_rng(devices=[]):
            for number in range(rounds):
                figures, labelled = self._part(number * size, size)
                whole = ranks.total(figures)
                total, right, answers = total + whole["loss"], right + whole["right"], answers + whole["answers"]
                weight += labelled
        model.train()
        return Measured(total / max(weight, 1e-9), right / max(answers, 1.0))

    def _part(self, position: int, size: int) -> tuple[dict[str, float], float]:
        """This process's part of some records' summed loss, right answers and answers, and the weight of all their
        answers' tokens."""
        ctx = self.ctx
        samples = self.data.draw(position, size, DRAW)
        which = torch.zeros(size, dtype=torch.long)
        rows = self.data.pack(ctx.packer, samples, which, per_question=ctx.model.fusion.per_question)
        labelled = rows.labelled
        own = ctx.ranks.local_slice(len(rows.groups))
        shown = rows.shown[rows.shown_in(own)]
        seen = ctx.encode_trainable(samples, learning=False)
        packed = packed_rows(rows.packed, own)
        inputs = packed.model_inputs()
        out = ctx.model(
            **{name: value.to(ctx.ranks.device) for name, value in inputs.items()},
            features=index_select(seen, shown) if len(shown) else None,
            num_items_in_batch=labelled,
            use_cache=False,
        )
        right = answers_right(out.logits, packed)
        counted = {"right": float(right.nansum()), "answers": float((~right.isnan()).sum())}
        return {"loss": float(out.loss) * labelled, **counted}, labelled

    def take_best(self) -> str | None:
        """Give the model the weights with the lowest loss, if any were kept; says which."""
        recipe = self.ctx.recipe
        found = load_checkpoint(self.folder, config_hash=config_hash(recipe), on_warning=lambda text: None)
        if not recipe.data.keep_best or found is None:
            return None
        self.ctx.model.load_state_dict(found.tensors["model"], strict=False)
        return f"the model is that of step {found.state['step']} of tune: validation loss {self.lowest:.4f}"
