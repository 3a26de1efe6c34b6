"""The most memory that one process of a run ever has, from loading to evaluation: what a machine must offer.

A stage's peak counts what training steps need on a device. A process has more: the libraries themselves, a checkpoint
that is there twice while it is read, experts that look at many pictures at once, the evaluation at the end, drawn
pictures, and on a processor what the C library keeps of freed memory. Tensors are aligned, and glibc does not find an
aligned block of a size again among freed ones of that size: of blocks that come and go with every step and are too
small for a mapping of their own it holds about as many bytes freed as in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from astrea.data.streaming import ENCODE_BATCH
from astrea.estimate.inference import encoding, evaluation
from astrea.estimate.loading import bytes_of, loading, replaced_words
from astrea.estimate.stages import StageCost
from astrea.recipes.recipe import Recipe
from astrea.training.context import TrainingContext
from astrea.world.confidence import PICTURES
from astrea.world.dataset import CHUNK
from astrea.world.evaluation.tasks import GROUP_SIZE

LIBRARIES = 490_000_000
"""Bytes of Python with torch, transformers and all else that training uses: what is resident after training the tiny
recipe less its model and features; measured on Linux, torch for a processor."""

LOOKED_AT = 300
"""Test scenes that are drawn for the compact experts' own scores, whichever experts there are."""

PHASES = ("loading", "encoding", "training", "evaluation")


@dataclass(frozen=True, slots=True)
class Phase:
    """Bytes of one phase of a run when most are in use, the libraries apart.

    tensors: where the model computes. moving: those of them in small blocks that come and go. beside: in the
    processor's memory, wherever the model computes: features, drawn pictures, what is left of a checkpoint's file.
    """

    tensors: int
    moving: int = 0
    beside: int = 0


@dataclass(frozen=True, slots=True)
class ProcessCost:
    """Bytes of one process. loading: on the processor in any case. training: the most expensive stage. on_gpu: all
    other phases compute on a GPU."""

    libraries: int
    loading: Phase
    encoding: Phase
    training: Phase
    evaluation: Phase
    on_gpu: bool

    def resident(self, name: str) -> int:
        """What the process has in the processor's memory during a phase."""
        phase: Phase = getattr(self, name)
        computing = 0 if self.on_gpu and name != "loading" else phase.tensors + phase.moving
        return self.libraries + phase.beside + computing

    @property
    def peak(self) -> int:
        """The most of all that is in the processor's memory."""
        return max(map(self.resident, PHASES))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"resident": {name: self.resident(name) for name in PHASES}, "peak": self.peak}


def process_cost(ctx: TrainingContext, stages: Sequence[StageCost]) -> ProcessCost:
    """What a run's process takes.

    Args:
        ctx: without numbers. stages: what its stages cost.
    """
    recipe, words, features = ctx.recipe, replaced_words(ctx), kept_features(ctx)
    own_data = recipe.data.train is not None
    looked = encoding(ctx, ENCODE_BATCH if own_data else min(CHUNK, recipe.data.train_scenes))
    # Experts look at the pictures of data files between two steps, beside what the optimizer keeps.
    within = max((s.memory["optimizer"] + s.memory["gradients"] for s in stages if own_data), default=0)
    drawn = 0 if own_data else recipe.data.train_scenes * picture_bytes(recipe)
    dearest = max(stages, key=lambda stage: stage.peak + stage.moving, default=None)
    together = min(CHUNK, max(_test_sets(recipe)))
    tested = looked if own_data or together <= recipe.data.train_scenes else encoding(ctx, together)
    answering = evaluation(ctx)
    evaluated = max(answering, tested, key=lambda tracker: tracker.peak + tracker.moving)
    return ProcessCost(
        libraries=LIBRARIES,
        loading=Phase(loading(ctx)),
        encoding=Phase(looked.peak + within, looked.moving, words + features + drawn),
        training=Phase(0, 0) if dearest is None else Phase(dearest.peak, dearest.moving, words + features),
        evaluation=Phase(
            evaluated.peak, evaluated.moving, 0 if own_data else tested_pictures(recipe) * picture_bytes(recipe)
        ),
        on_gpu=recipe.runtime.device != "cpu",
    )


def kept_features(ctx: TrainingContext) -> int:
    """Bytes of what experts saw in the embedded world's pictures, which is there until training ends; 0 for data files,
    whose pictures' features come and go."""
    if ctx.recipe.data.train is not None:
        return 0
    seen = ctx.data.features.values()  # type: ignore[attr-defined]
    parts = (part for one in seen for part in (one.tokens, one.confidence, one.places) if part is not None)
    return round(bytes_of(parts) / len(ctx.data) * ctx.recipe.data.train_scenes)  # type: ignore[arg-type]


def picture_bytes(recipe: Recipe) -> int:
    """Of a drawn scene: three bytes a pixel, and one that says what it belongs to."""
    return 4 * recipe.world.canvas**2


def tested_pictures(recipe: Recipe) -> int:
    """The most scenes that evaluation holds at a time: those from which it learns what is familiar, or the test sets
    with those that are drawn for the experts' own scores."""
    familiar, *sets = _test_sets(recipe)
    return max(familiar, sum(sets) + LOOKED_AT)


def _test_sets(recipe: Recipe) -> tuple[int, ...]:
    """How many scenes are encoded together, one set after another, in evaluation: what is familiar is learned from the
    first, questions are asked about some (about two for a question of each task), two sets are described, and some
    are to be found."""
    data = recipe.data
    described, found = data.test_captions, GROUP_SIZE * data.test_retrieval_groups
    return min(PICTURES, data.train_scenes), 2 * data.test_questions, described, described, found
