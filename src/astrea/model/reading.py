"""From tokens and pictures to what the language model is given: embeddings, a mask and positions.

Letters: B rows, L new tokens per row, K keys (those in the cache and the new ones), H attention heads, N pictures,
S questions per row, E experts, D language-model width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from astrea.common.float32 import wide
from astrea.fusion.protocol import VisualTokens
from astrea.language.attention import attention_mask, picture_blocks, position_ids, word_match
from astrea.model.cache import Keys
from astrea.model.rows import asked_tokens, mean_questions, row_mask


@dataclass(frozen=True, slots=True)
class Text:
    """New tokens of a batch of rows, and how to read them.

    embeds: (B, L, D). is_image: (B, L) bool, the placeholders. mask: (B, L) or (B, K), 0 = padding, or None.
    question_mask, labels, segments, questions: (B, L) or None, see `AstreaModel.forward`.
    """

    embeds: Tensor
    is_image: Tensor
    mask: Tensor | None
    question_mask: Tensor | None
    labels: Tensor | None
    segments: Tensor | None
    questions: Tensor | None

    @property
    def real(self) -> Tensor:
        """Which new tokens are no padding: (B, L) bool."""
        return torch.ones_like(self.is_image) if self.mask is None else row_mask(self.mask, self.is_image.shape[1])

    @property
    def asked(self) -> Tensor:
        """Which new tokens are a question's: (B, L) bool."""
        return asked_tokens(self.is_image, self.real, self.question_mask, self.labels)

    def mean_questions(self) -> Tensor:
        """The mean embedding of every question: (B, S, D)."""
        numbers = self.segments if self.questions is None else self.questions
        return mean_questions(self.embeds.to(wide(self.embeds.dtype)), self.asked, numbers)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the language model is given.

    embeds: (B, L, D). mask: (B, 1 or H, L, K), additive. positions: (B, L). keys: all K of them.
    """

    embeds: Tensor
    mask: Tensor
    positions: Tensor
    keys: Keys


def read(
    text: Text,
    visual: VisualTokens | None,
    rows_N: Tensor | None,
    gamma_H: Tensor | None,
    tokens: int,
    known: Keys | None,
    *,
    in_order: bool = False,
) -> Reading:
    """Put pictures in the place of their placeholders.

    Args:
        visual, rows_N: the pictures of the new tokens and the rows that they stand in, or None.
        gamma_H: strength of the word match per head, or None.
        tokens: how many placeholders a picture takes.
        known: the keys that are in the cache already, or None. With them and without pictures no new token is a
            placeholder.
        in_order: visual tokens are read like text, one after another, and not as a set.
    """
    length, past = text.is_image.shape[1], 0 if known is None else known.positions.shape[1]
    new, embeds, bias_BSL, cross_only_BL = _seen(
        text, visual, rows_N, tokens, matched=gamma_H is not None, in_order=in_order
    )
    exact = wide(embeds.dtype)
    if known is not None:
        behind = known.positions[:, -1:] + 1
        if in_order:  # what is not read has no position of its own, not even the first
            behind = behind * known.readable.any(1, keepdim=True)
        new = Keys(new.readable, new.bias, new.words, new.positions + behind, new.asked)
        bias_BSL = torch.cat([known.bias.unsqueeze(1), new.bias.unsqueeze(1)], 2)
    keys = new if known is None else known.then(new)
    readable = keys.readable
    if past and text.mask is not None and text.mask.shape[1] == past + length:
        readable = torch.cat([readable[:, :past] & text.mask[:, :past].bool(), readable[:, past:]], 1)
    match = None
    if keys.words is not None and gamma_H is not None:
        match = word_match(text.embeds.to(exact), keys.words, gamma_H)
    # A step that goes on from a cache and is shown nothing has no placeholder in it.
    pictures = None if past and visual is None else pad(picture_blocks(text.is_image, tokens), (past, 0))
    mask = attention_mask(
        readable,
        pictures,
        text.segments,
        bias_BSL,
        match,
        queries=length,
        dtype=embeds.dtype,
        questions_BL=text.questions,
        cross_only_BL=None if cross_only_BL is None else pad(cross_only_BL, (past, 0)),
        in_order=in_order,
    )
    return Reading(embeds, mask, new.positions, keys)


def _seen(
    text: Text, visual: VisualTokens | None, rows_N: Tensor | None, tokens: int, *, matched: bool, in_order: bool
) -> tuple[Keys, Tensor, Tensor | None, Tensor | None]:
    """The new keys, embeddings with pictures in them, what each question adds to its scores (B, S, L) or None, and
    which tokens other visual tokens do not read (B, L) or None."""
    embeds, is_image, real = text.embeds, text.is_image, text.real
    exact = wide(embeds.dtype)
    read = None
    if in_order:
        read = is_image if visual is None else torch.zeros_like(is_image).masked_scatter(is_image, visual.valid)
    positions = position_ids(is_image, real, text.segments, tokens, read_BL=read)
    none = embeds.new_zeros(*is_image.shape, dtype=exact)
    if visual is None or rows_N is None:
        return Keys(real, none, None, positions, text.asked), embeds, None, None
    place = is_image.unsqueeze(-1)
    words = bias_BSL = cross_only = None
    if visual.words is not None and matched:
        words = torch.zeros_like(embeds, dtype=exact).masked_scatter(place, visual.words.to(exact))
    if visual.bias is not None:
        said = visual.bias.transpose(1, 2).to(exact)
        bias_BLS = embeds.new_zeros(*is_image.shape, said.shape[-1], dtype=exact).masked_scatter(place, said)
        bias_BSL = bias_BLS.transpose(1, 2)
    if visual.cross_only is not None:
        cross_only = torch.zeros_like(real).masked_scatter(is_image, visual.cross_only.expand(len(rows_N), -1))
    readable = real.masked_scatter(is_image, visual.valid)
    seen = embeds.masked_scatter(place, visual.tokens.to(embeds.dtype))
    keys = Keys(readable, none if bias_BSL is None else bias_BSL[:, 0], words, positions, text.asked)
    return keys, seen, bias_BSL, cross_only


Embedding = Callable[[Tensor], Tensor]


def placeholders(input_ids: Tensor | None, embeds: Tensor, image_token_id: int, embedding: Embedding) -> Tensor:
    """Which tokens stand for pictures: (B, L) bool; where only embeddings are given, those of the placeholder."""
    if input_ids is not None:
        return input_ids == image_token_id
    mark = embedding(torch.tensor([[image_token_id]], device=embeds.device)).to(embeds.dtype)
    return (embeds == mark).all(-1)
