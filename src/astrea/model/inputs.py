"""What a call gives the model.

Letters: B rows of text, N pictures (in reading order over the rows), L text length, E experts, D language-model width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from astrea.experts.protocol import ExpertFeatures
from astrea.fusion.protocol import FusionStrategy

Features = Mapping[str, ExpertFeatures]


class Options(TypedDict, total=False):
    """Keywords of ``forward`` that few calls use.

    use_cache: whether keys and values are kept for later steps; None = in evaluation mode.
    segments, questions: (B, L) for packed rows, see `astrea.language.attention`.
    label_weights: (B, L); the loss is then the weighted mean. (No named argument: Trainer would take it for a second
        label.)
    num_items_in_batch: what the labels' weights (1 each, if there are none) add up to in the whole batch, where these
        rows are only a part of it: another process or micro-step has the others. The loss is then this part's share of
        the batch's mean, so that parts add up, and 0 if no token here has a label. (The name is that of transformers,
        whose Trainer passes it.)
    generator: drives the stochastic residual; None = evaluation.
    phrase_dropout: with a generator, the chance that a picture is read without one of an expert's two phrases.
    fusion: fuses instead of the model's own strategy; M is then its ``num_tokens``. For a training stage that reads
        less than the whole model does; decoding with a cache is not provided for.
    answers_only: for training: tokens that nobody reads are left out of the language model's pass, and only tokens with
        a label are scored (``label_logits`` instead of ``logits``). Needs labels, and no cache.
    output_attentions, output_hidden_states: what else the language model returns; None = as the configuration says.
    """

    use_cache: bool | None
    segments: Tensor | None
    questions: Tensor | None
    label_weights: Tensor | None
    num_items_in_batch: Tensor | float | None
    generator: torch.Generator | None
    phrase_dropout: float
    fusion: FusionStrategy | None
    answers_only: bool
    output_attentions: bool | None
    output_hidden_states: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What decides how rows are read; see `AstreaForConditionalGeneration.forward` and `Options`."""

    input_ids: Tensor | None = None
    attention_mask: Tensor | None = None
    pixel_values: Tensor | None = None
    original_images: Sequence[Tensor] | None = None
    features: Features | None = None
    present: Tensor | None = None
    question_mask: Tensor | None = None
    labels: Tensor | None = None
    inputs_embeds: Tensor | None = None
    past_key_values: Cache | None = None
    cache: Cache | None = None
    use_cache: bool | None = None
    segments: Tensor | None = None
    questions: Tensor | None = None
    generator: torch.Generator | None = None
    phrase_dropout: float = 0.0
    fusion: FusionStrategy | None = None

    @classmethod
    def among(cls, options: Mapping[str, Any], **named: Any) -> Inputs:
        """The named arguments of a call, and those of its options that concern reading."""
        known = {field.name for field in fields(cls)}
        return cls(**named, **{name: value for name, value in options.items() if name in known})

    @property
    def given_cache(self) -> Cache | None:
        """The cache, under its old name or its new one."""
        return self.past_key_values if self.cache is None else self.cache
