"""The most memory that one process of a run ever has, from loading to evaluation: what a machine must offer.

A stage's peak counts what training steps need on a device. A process has more: the libraries themselves, a checkpoint
that is there twice while it is read, the evaluation at the end, and on a processor what the C library keeps of freed
memory. Tensors are aligned, and glibc does not find an aligned block of a size again among freed ones of that size: of
blocks that come and go with every step and are too small for a mapping of their own it holds about as many bytes freed
as in use.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from astrea.data.packing import Packer, Turn, answer_losses
from astrea.estimate.build import language_config
from astrea.estimate.fake_tensors import fake_tensors
from astrea.estimate.precision import lowered
from astrea.estimate.stages import StageCost, computes_low_here
from astrea.estimate.tracker import MemoryTracker
from astrea.training.context import TrainingContext
from astrea.world.dataset import scenes_of
from astrea.world.evaluation.contribution import ROWS
from astrea.world.scenes.questions import Balancer

LIBRARIES = 490_000_000
"""Bytes of Python with torch, transformers and all else that training uses: what is resident after training the tiny
recipe less its model and features; measured on Linux, torch for a processor."""

ASKED = 64
"""Prompts that evaluation reads together."""


@dataclass(frozen=True, slots=True)
class ProcessCost:
    """Bytes of one process while it loads, trains (its most expensive stage), and evaluates.

    kept: there all the time: what experts saw in the embedded world's pictures, and a checkpoint's own word embeddings
    where larger ones have taken their place. on_gpu: training and evaluation happen on a GPU, where the libraries'
    share is not.
    """

    libraries: int
    loading: int
    training: int
    evaluation: int
    kept: int
    on_gpu: bool

    @property
    def peak(self) -> int:
        """The most of all, where everything happens on the processor; else of the processor's memory: loading."""
        most = self.loading if self.on_gpu else max(self.loading, self.training, self.evaluation)
        return self.libraries + self.kept + most

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"peak": self.peak}


def process_cost(ctx: TrainingContext, stages: Sequence[StageCost]) -> ProcessCost:
    """What a run's process takes.

    Args:
        ctx: without numbers. stages: what its stages cost.
    """
    language = ctx.model.language_model
    own = _bytes(language.state_dict().values())
    # A checkpoint's file is mapped into memory while its tensors are copied.
    loading = _bytes(ctx.model.state_dict().values()) + (own if ctx.recipe.llm.checkpoint is not None else 0)
    samples = len(ctx.data)  # type: ignore[arg-type]
    features = [part for seen in ctx.data.features.values() for part in (seen.tokens, seen.confidence, seen.places)]  # type: ignore[attr-defined]
    per_picture = _bytes(part for part in features if part is not None) / samples
    own_data = ctx.recipe.data.train is not None
    on_gpu = ctx.recipe.runtime.device != "cpu"
    evaluated = evaluation(ctx)
    return ProcessCost(
        libraries=LIBRARIES,
        loading=loading,
        training=max((stage.peak + (0 if on_gpu else stage.moving) for stage in stages), default=0),
        evaluation=evaluated.peak + (0 if on_gpu else evaluated.moving),
        kept=(0 if own_data else round(per_picture * ctx.recipe.data.train_scenes)) + replaced_words(ctx),
        on_gpu=on_gpu,
    )


def replaced_words(ctx: TrainingContext) -> int:
    """Bytes of a checkpoint's own word embeddings, if it gets more words: the rest of its file stays mapped, and they
    with it, unless its numbers are converted."""
    given = None if ctx.recipe.llm.checkpoint is None else language_config(ctx.recipe)
    words = ctx.model.embedding_table()
    known = words.shape[0] if given is None else given.get_text_config().vocab_size
    if given is None or known >= words.shape[0] or given.dtype != words.dtype:
        return 0
    return int(known * words.shape[1] * words.element_size())


@torch.no_grad()
def evaluation(ctx: TrainingContext) -> MemoryTracker:
    """What a finished model takes while it is evaluated, at most when contributions are measured over rows of many
    questions, or when many prompts are read together."""
    model, packer = ctx.model, Packer(ctx.tokenizer, ctx.model.num_visual_tokens)
    scenes = list(scenes_of("train", ROWS, ctx.recipe.world))
    balancer, rng = Balancer(), random.Random(0)
    asked = [balancer.choose(scene, rng) for scene in scenes]
    tracker = MemoryTracker()
    with tracker, fake_tensors(), lowered(model.language_model, computes_low_here(ctx)):
        tracker.adopt([*model.parameters(), *model.buffers()], "weights")
        model.eval()

        def seen(rows: int) -> dict[str, Any]:
            return ctx.data.rows(torch.arange(rows) % len(ctx.data))  # type: ignore[attr-defined, arg-type, no-any-return]

        packed = packer.pack([[Turn(q.text, q.answer) for q in some] for some in asked])
        inputs = packed.model_inputs()
        logits = model(**inputs, features=seen(ROWS), use_cache=False).logits
        answer_losses(logits, inputs["labels"], inputs["segments"], int(packed.segments.max()))
        del logits
        texts = [q.text for some in asked for q in some]
        prompts = packer.prompts([texts[at % len(texts)] for at in range(ASKED)], pictures=True)
        model(**prompts, features=seen(ASKED), use_cache=True, logits_to_keep=1)
        model.train()
    return tracker


def _bytes(tensors: Any) -> int:
    """Of tensors, those that share memory counted once."""
    held = {id(tensor.untyped_storage()): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(held.values())
