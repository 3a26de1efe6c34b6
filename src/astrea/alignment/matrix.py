"""The expert matrix (paper, section on heterogeneous experts): all experts' tokens in one latent space.

Letters: B pictures, E experts, T all experts' tokens, D language-model width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


def distances(places_BT2: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances between the places of all pairs of tokens (B, T, T), and where both have a place, bool.

    The value of a pair without places is meaningless but finite: where a result is masked, the gradient of NaN would
    still be NaN.
    """
    known_BT = ~places_BT2.isnan().any(-1)
    places_BT2 = places_BT2.nan_to_num(0.0)
    squared_BTT = (places_BT2[:, :, None] - places_BT2[:, None, :]).square().sum(-1)
    return squared_BTT, known_BT[:, :, None] & known_BT[:, None, :]


@dataclass(frozen=True, slots=True)
class ExpertMatrix:
    """All experts of a batch of pictures, in native form, aligned to one width.

    tokens: (B, T, D). confidence: (B, T) in 0..1. valid: (B, T) bool, false for empty slots and absent experts.
    present: (B, E) bool. expert: (T,) long, which expert a token comes from.
    places: (B, T, 2) where each token looks, x and y as shares of the picture; NaN for tokens without a place.
    The rest is of findings that enter as phrases, and None where each is one token. ids: (B, T) long, the language
    model's own word that a token is, -1 for none. features: (T,) bool, tokens that are made of channels without names.
    phrase: (T,) long, which of its expert's phrases a token stands in. piece: (T,) long, which piece of a known word a
    token is for, -1 for others.
    """

    tokens: Tensor
    confidence: Tensor
    valid: Tensor
    present: Tensor
    expert: Tensor
    places: Tensor
    ids: Tensor | None = None
    features: Tensor | None = None
    phrase: Tensor | None = None
    piece: Tensor | None = None

    @property
    def experts(self) -> int:
        """How many experts, E."""
        return self.present.shape[1]

    def with_presence(self, present_BE: Tensor) -> ExpertMatrix:
        """The same pictures with some experts taken away: their tokens are masked, nothing else changes."""
        present = self.present & present_BE
        return replace(self, present=present, valid=self.valid & present[:, self.expert])

    def without_phrases(self, lost_BE: Tensor) -> ExpertMatrix:
        """The same pictures without one phrase of some experts (its number, -1 = none), where that leaves another."""
        assert self.phrase is not None
        gone_BT = lost_BE[:, self.expert] == self.phrase
        member_TE = torch.nn.functional.one_hot(self.expert, self.experts).to(self.tokens.dtype)
        left_BE = ((self.valid & ~gone_BT).to(self.tokens.dtype) @ member_TE) > 0
        return replace(self, valid=self.valid & ~(gone_BT & left_BE[:, self.expert]))

    def summary(self) -> tuple[Tensor, Tensor]:
        """Per expert, the confidence-weighted mean token (B, E, D) and the mean confidence (B, E); zeros if absent."""
        weight_BT = self.confidence * self.valid
        member_TE = torch.nn.functional.one_hot(self.expert, self.experts).to(self.tokens.dtype)
        total_BE = weight_BT @ member_TE
        mean_BED = torch.einsum("bt,te,btd->bed", weight_BT, member_TE, self.tokens) / total_BE.clamp_min(
            1e-6
        ).unsqueeze(-1)
        count_BE = self.valid.to(self.tokens.dtype) @ member_TE
        return mean_BED, total_BE / count_BE.clamp_min(1)
