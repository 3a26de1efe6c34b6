"""What experts take while they encode pictures, and a finished model while it is evaluated: the code that does it, run
on fake tensors.

Both go by batches of a fixed size, whatever the recipe's own are, and compute in the type of the weights, without
autocast.
"""

from __future__ import annotations

from typing import Any

import torch

from astrea.data.packing import CAPTION_PROMPT, Turn
from astrea.estimate.fake_tensors import fake_tensors
from astrea.estimate.tracker import MemoryTracker
from astrea.evaluation.generate import Predictor
from astrea.evaluation.signals import AT_ONCE
from astrea.training.context import TrainingContext
from astrea.world.evaluation.runner import CAPTION_LENGTH, SHORTLIST

RANKED = 8
"""Pictures whose captions `Predictor.likelihood` ranks in one pass."""


@torch.no_grad()
def encoding(ctx: TrainingContext, pictures: int) -> MemoryTracker:
    """Each expert in turn looks at so many pictures."""
    bank, size = ctx.model.experts, ctx.model.config.image_size
    tracker = MemoryTracker()
    with tracker, fake_tensors():
        tracker.adopt([*ctx.model.parameters(), *ctx.model.buffers()], "weights")
        for name in bank.names:
            bank(torch.empty(pictures, 3, size, size, device=ctx.model.device), [name])
    return tracker


def evaluation(ctx: TrainingContext) -> MemoryTracker:
    """Greedy answers and captions, the likelihood of answers, retrieval: of each one batch."""
    model = ctx.model
    was_training = model.training
    tracker = MemoryTracker()
    with tracker, fake_tensors():
        tracker.adopt([*model.parameters(), *model.buffers()], "weights")
        predictor = Predictor(model, ctx.tokenizer)
        pictures = torch.arange(predictor.batch) % len(ctx.data)  # type: ignore[arg-type]
        seen: Any = ctx.data.rows(pictures)  # type: ignore[attr-defined]
        asked = [question for questions in ctx.data.questions for question in questions]  # type: ignore[attr-defined]
        texts = [question.text for question in asked][: predictor.batch]
        told = [captions[0] for captions in ctx.data.captions]  # type: ignore[attr-defined]
        several = [told[at % len(told)] for at in range(predictor.batch)]
        _prompted(predictor, texts, seen)
        _prompted(predictor, [CAPTION_PROMPT] * predictor.batch, seen)
        predictor.embed(seen, several)
        wanted = [[(row + at) % len(several) for at in range(SHORTLIST)] for row in range(RANKED)]
        predictor.likelihood(seen, wanted, several, batch=RANKED)
        longest = sorted(asked, key=lambda question: -len(question.text))[:AT_ONCE]
        rows = [[Turn(question.text, question.answer)] for question in longest]
        predictor.answer_likelihoods(rows, predictor.rows(seen, slice(len(rows))))
    model.train(was_training)
    return tracker


@torch.no_grad()
def _prompted(predictor: Predictor, questions: list[str], seen: Any) -> None:
    """Prompts read together, with room in the cache for a caption behind each."""
    present = predictor.present(len(questions))
    inputs = predictor.prompts(questions, pictures=True)
    seen = predictor.rows(seen, slice(len(questions)))
    predictor.model.shares(**inputs, features=seen, present=present)
    out = predictor.model(**inputs, features=seen, present=present, use_cache=True, logits_to_keep=1)
    length = inputs["input_ids"].shape[1] + CAPTION_LENGTH
    for layer in out.past_key_values.layers:
        for name in ("keys", "values"):
            states = getattr(layer, name, None)
            if isinstance(states, torch.Tensor):
                setattr(layer, name, states.new_empty(*states.shape[:-2], length, states.shape[-1]))
