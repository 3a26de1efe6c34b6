"""What is measured of a training while it runs: which parameters learn, and the score against training seconds.

The measurement changes nothing: module modes and the random state are as they were, so a run gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from astrea.common.progress import Reporter
from astrea.evaluation.generate import Predictor
from astrea.recipes.recipe import Data
from astrea.training.checkpoint import rng_state, set_rng_state
from astrea.training.context import TrainingContext
from astrea.world.evaluation.runner import EncodedTestSets, encode_test_sets, run_tasks
from astrea.world.evaluation.tasks import TASKS, build_test_sets

QUESTIONS, CAPTIONS, GROUPS = 20, 20, 5
"""Size of the validation set that a curve is measured on."""


class TrainingCallback:
    """The arena's callback of a training; see `astrea.training.trainer.train`.

    Args:
        every: optimizer steps of `fuse` and `tune` between two points of the curve; 0 = no curve.

    Attributes:
        learned: names of the model's parameters that have had a gradient other than zero. An optimizer may also hold
            parameters that a strategy never uses; these are not among them.
        curve: [training seconds so far, average score 0..100], one after the other.
    """

    def __init__(self, every: int = 0) -> None:
        self.every = every
        self.learned: set[str] = set()
        self.curve: list[list[float]] = []
        self._encoded: EncodedTestSets | None = None
        self._steps = 0

    def __call__(self, ctx: TrainingContext, stage: str, step: int, seconds: float) -> None:
        """One optimizer step is done."""
        # Zero starts let gradients through one layer a step; later on every 20th step is enough.
        if step <= 4 or step % 20 == 0:
            self.note_learned(ctx.model)
        if self.every and stage in ("fuse", "tune"):
            self._steps += 1
            if self._steps % self.every == 0 or (stage == "tune" and step == ctx.recipe.tune.steps):
                self.curve.append([round(seconds, 2), round(self.score(ctx), 3)])

    def note_learned(self, model: nn.Module) -> None:
        """Remember the parameters with a gradient."""
        for name, parameter in model.named_parameters():
            if name not in self.learned and parameter.grad is not None and bool(parameter.grad.any()):
                self.learned.add(name)

    def score(self, ctx: TrainingContext) -> float:
        """The average over the twelve tasks on a small validation set, 0..100."""
        data = ctx.recipe.data
        small = Data(
            test_questions=min(QUESTIONS, data.test_questions),
            test_captions=min(CAPTIONS, data.test_captions),
            test_retrieval_groups=min(GROUPS, data.test_retrieval_groups),
        )
        with undisturbed(ctx.model):
            if self._encoded is None:
                self._encoded = encode_test_sets(
                    ctx.model, build_test_sets(ctx.recipe.world, small, split="validation")
                )
            predictor = Predictor(ctx.model, ctx.tokenizer)
            return run_tasks(predictor, self._encoded, TASKS, blind=False, label="curve", report=Reporter()).average


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Afterwards every module is in the mode it was in, and the random generators are where they were."""
    modes = {module: module.training for module in model.modules()}
    random = rng_state()
    try:
        yield
    finally:
        set_rng_state(random)
        for module, mode in modes.items():
            module.training = mode
