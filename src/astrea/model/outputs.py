"""What an Astrea model returns.

Letters: B rows of text, L text length, N pictures (in reading order over the rows), S questions per row, E experts,
M visual tokens per picture, D language-model width, V words, A tokens with a label.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast


@dataclass
class AstreaModelOutput(BaseModelOutputWithPast):
    """What `AstreaModel` returns: the fields of transformers and the four below.

    last_hidden_state: (B, L, D). shares: (N, S, E), each expert's share for each question. image_hidden_states:
    (N, M, D), the fused tokens that the language model read. aux_loss: what the fusion strategy wants added in
    training, a scalar, or None. router_logits: (N, S, U), the scores that a routing strategy decided by, or None.
    """

    shares: Tensor | None = None
    image_hidden_states: Tensor | None = None
    aux_loss: Tensor | None = None
    router_logits: Tensor | None = None


@dataclass
class AstreaOutput(CausalLMOutputWithPast):
    """What `AstreaForConditionalGeneration` returns: the fields of transformers and the four of `AstreaModelOutput`.

    loss: mean next-token loss over the labels, or None. logits: (B, L, V); None where ``answers_only`` was asked for.
    label_logits: then (A, V), what was said in the place of each token with a label, in reading order; or None.
    """

    label_logits: Tensor | None = None
    shares: Tensor | None = None
    image_hidden_states: Tensor | None = None
    aux_loss: Tensor | None = None
    router_logits: Tensor | None = None
