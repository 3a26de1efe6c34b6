"""What a model says of pictures and texts apart from answers: shares of the experts, vectors for retrieval.

Letters: B rows of text, N pictures, L text length, E experts, D language-model width, P contrast width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from astrea.alignment.alignment import Alignment
from astrea.common.float32 import in_full, wide
from astrea.experts.bank import Originals
from astrea.language.attention import attention_mask as additive_mask
from astrea.language.attention import position_ids
from astrea.language.windows import masks_for
from astrea.model.inputs import Features
from astrea.model.rows import asked_tokens, mean_questions, rows_of_pictures


class Embedding:
    """These methods of `AstreaModel`, which has all that they ask for."""

    config: Any
    alignment: Any
    fusion: Any
    language_model: Any
    windows: Any
    num_visual_tokens: Any
    believed: Any
    encode_images: Any
    fuse: Any
    with_words: Any
    get_input_embeddings: Any
    _check_length: Any

    @torch.no_grad()
    def shares(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        question_mask: Tensor | None = None,
        features: Features | None = None,
        present: Tensor | None = None,
        pixel_values: Tensor | None = None,
        original_images: Originals | None = None,
    ) -> Tensor:
        """The share of every expert (N, E) for rows of one question each, without running the language model."""
        is_image = input_ids == self.config.image_token_id
        features = features if features is not None else self.encode_images(pixel_values, original_images)
        real = torch.ones_like(is_image) if attention_mask is None else attention_mask.bool()
        embeds = self.get_input_embeddings()(input_ids)
        asked = mean_questions(embeds.to(wide(embeds.dtype)), asked_tokens(is_image, real, question_mask, None), None)
        rows = rows_of_pictures(is_image, features, self.num_visual_tokens)
        found: Tensor = self.fuse(features, present, asked[rows], None).shares[:, 0]
        return found

    @torch.no_grad()
    def embed_image(
        self,
        pixel_values: Tensor | None = None,
        features: Features | None = None,
        present: Tensor | None = None,
        original_images: Originals | None = None,
    ) -> Tensor:
        """Unit vectors (N, P) of pictures, comparable with `embed_text` by dot product."""
        features = features if features is not None else self.encode_images(pixel_values, original_images)
        return self.picture_vectors(features, self.believed(features, present))

    def picture_vectors(
        self, features: Features, present: Tensor | None = None, *, alignment: Alignment | None = None
    ) -> Tensor:
        """`embed_image` with gradient: the head reads the fused tokens for the empty question.

        Args:
            alignment: the momentum copy instead of the model's own adapters and heads.
        """
        alignment = alignment or self.alignment
        matrix = self.with_words(in_full(alignment, features, present))
        nothing = matrix.tokens.new_zeros(len(matrix.tokens), 1, matrix.tokens.shape[-1])
        fused = in_full(self.fusion, matrix, nothing)
        found: Tensor = in_full(alignment.picture_head, fused.tokens, fused.valid)
        return found

    @torch.no_grad()
    def embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Unit vectors (B, P) of texts without pictures or chat marks."""
        found: Tensor = in_full(self.alignment.text_head, self.text_states(input_ids, attention_mask))
        return found

    @torch.no_grad()
    def text_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The language model's own mean hidden state of each text: (B, D), in float32 at least."""
        real = attention_mask.bool()
        embeds = self.get_input_embeddings()(input_ids)
        positions = position_ids(torch.zeros_like(real), real, None)
        self._check_length(real.shape[1], positions)
        mask = additive_mask(real, None, None, None, queries=real.shape[1], dtype=embeds.dtype)
        hidden = self.language_model(
            inputs_embeds=embeds,
            attention_mask=masks_for(mask, positions, self.windows),
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state
        hidden = hidden.to(wide(hidden.dtype))
        weight = real.to(hidden.dtype).unsqueeze(-1)
        found: Tensor = (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)
        return found
