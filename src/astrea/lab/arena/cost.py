"""What one question about one picture costs a model: arithmetic and time, the experts counted apart."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedTokenizerBase

from astrea.evaluation.generate import Predictor
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.world.evaluation.runner import EncodedTestSets
from astrea.world.experts.truth import pixels_from_scenes

QUESTION = "what colour is the cat?"


def flops_per_sample(
    model: AstreaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, encoded: EncodedTestSets
) -> int:
    """Floating-point operations of alignment, fusion and the language model's reading of the prompt (the first word of
    the answer comes out of it); a multiply-add counts two. The experts' own are not in it."""
    return _flops(_one_question(model, tokenizer, encoded))


def flops_of_experts(model: AstreaForConditionalGeneration, encoded: EncodedTestSets) -> int:
    """Floating-point operations of all experts looking at one picture."""
    pixels = pixels_from_scenes(encoded.sets.pool[:1])
    return _flops(lambda: model.encode_images(pixels))


def latency_ms(
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    encoded: EncodedTestSets,
    *,
    runs: int = 30,
) -> float:
    """Milliseconds of the pass that `flops_per_sample` counts, on one thread: the median of some runs."""
    ask = _one_question(model, tokenizer, encoded)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = []
        for _ in range(runs + 3):
            began = time.perf_counter()
            with torch.inference_mode():
                ask()
            seconds.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return 1000 * statistics.median(seconds[3:])  # the first ones pay for what is set up once


def _one_question(
    model: AstreaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, encoded: EncodedTestSets
) -> Callable[[], Any]:
    inputs = Predictor(model, tokenizer).prompts([QUESTION], pictures=True)
    features = {name: part.rows(slice(0, 1)) for name, part in encoded.pool.items()}

    return lambda: model(**inputs, features=features, use_cache=True, logits_to_keep=1)


def _flops(work: Callable[[], Any]) -> int:
    # With gradients: the counter hooks into them, and in inference mode linear layers would reach it whole, unknown.
    with FlopCounterMode(display=False) as counter:
        work()
    found: int = counter.get_total_flops()
    return found
