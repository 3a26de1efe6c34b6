"""A model asked without a picture, in the middle of other work: it is left as it was."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from astrea.evaluation.generate import Predictor, Tick
from astrea.model.modeling import AstreaForConditionalGeneration

BATCH = 32


def plain_answers(
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    *,
    longest: int,
    tick: Tick = lambda done, total: None,
) -> list[str]:
    """Greedy answers of at most ``longest`` tokens. The model stays in the mode that it was in, and no random number is
    drawn; questions are taken `BATCH` by `BATCH`, in their order, which decides the answers' last bits."""
    was_training = model.training
    try:
        with torch.random.fork_rng(devices=[]):
            asking = Predictor(model, tokenizer, batch=BATCH)
            return asking.answer(questions, None, None, longest=longest, tick=tick).texts
    finally:
        model.train(was_training)
