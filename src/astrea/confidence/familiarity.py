"""How unlike a picture is to those that a model was trained on, in what one expert says about it.

What an expert says of a picture is summed up in a few hundred numbers; how those of training pictures vary is kept as
their mean, their main axes and the variance along each (probabilistic PCA; Tipping & Bishop 1999). The distance of a
new picture is Mahalanobis', as in Lee et al. 2018 (arXiv 1807.03888), over the one that nearly all pictures stay
within.

Letters: N pictures, T tokens, C width of one, F = 2 C + 4 numbers, K axes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from astrea.experts.protocol import ExpertFeatures

AXES = 24
USUAL = 0.99
"""Share of the training pictures that are familiar."""
LEAST_SPREAD = 1e-2
"""Below this a number hardly ever changes in training, and how much it did says nothing."""
MEAN_CONFIDENCE = 1
"""Which of the numbers behind the 2 C of tokens is the mean confidence."""


@dataclass(frozen=True, slots=True)
class Familiar:
    """What an expert usually says. mean, spread: (F,). axes: (K, F). variance: (K,) along them, of standardised
    numbers. rest: () their mean variance elsewhere. limit: () the distance that `USUAL` pictures stay within."""

    mean: Tensor
    spread: Tensor
    axes: Tensor
    variance: Tensor
    rest: Tensor
    limit: Tensor

    def strangeness(self, features: ExpertFeatures) -> Tensor:
        """(N,) natural logarithm of the distance over its limit: above 0, the picture is unlike those of training."""
        return (self.distance(summary(features)) / self.limit).clamp_min(1e-6).log()

    def distance(self, summary_NF: Tensor) -> Tensor:
        """(N,) mean squared deviation in standard deviations; 1 on average for training pictures."""
        scaled_NF = (summary_NF - self.mean) / self.spread
        along_NK = scaled_NF @ self.axes.T
        beside_N = (scaled_NF.square().sum(1) - along_NK.square().sum(1)).clamp_min(0)
        return ((along_NK.square() / self.variance).sum(1) + beside_N / self.rest) / len(self.mean)

    def tensors(self) -> dict[str, Tensor]:
        """Every number, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def summary(features: ExpertFeatures) -> Tensor:
    """(N, F): mean of the tokens weighted by confidence, their largest values, and four numbers about confidence."""
    tokens_NTC, sure_NT = features.tokens.float().cpu(), features.confidence.float().cpu()
    share_NT1 = (sure_NT / sure_NT.sum(1, keepdim=True).clamp_min(1e-6)).unsqueeze(-1)
    filled_NT = (sure_NT > 0).float()
    largest_NC = torch.where(filled_NT.bool().unsqueeze(-1), tokens_NTC, 0.0).amax(1)
    energy_N1 = (share_NT1 * tokens_NTC.square()).sum((1, 2)).unsqueeze(1)
    return torch.cat(
        [
            (share_NT1 * tokens_NTC).sum(1),
            largest_NC,
            energy_N1,
            sure_NT.mean(1, keepdim=True),
            sure_NT.amax(1, keepdim=True),
            filled_NT.mean(1, keepdim=True),
        ],
        1,
    )


def learn_familiar(features: ExpertFeatures) -> Familiar:
    """What is usual in the pictures that these features are of (N, at least 4).

    The last quarter is only measured with: its distances say how far pictures are that nothing was fitted to.
    """
    summary_NF = summary(features)
    count = len(summary_NF)
    kept = max(3, count * 3 // 4)
    fitted_NF = summary_NF[:kept]
    mean, spread = fitted_NF.mean(0), fitted_NF.std(0).clamp_min(LEAST_SPREAD)
    scaled_NF = (fitted_NF - mean) / spread
    _, singular, axes = torch.linalg.svd(scaled_NF, full_matrices=False)
    variance = singular.square() / (kept - 1)
    most = min(AXES, kept // 2, len(mean) - 1)
    along = variance[:most].clamp_min(1e-3)
    rest = (variance[most:].sum() / (len(mean) - most)).clamp_min(1e-2)
    found = Familiar(mean, spread, axes[:most].contiguous(), along, rest, torch.tensor(1.0))
    measured_N = found.distance(summary_NF[kept:] if kept < count else summary_NF)
    return Familiar(mean, spread, found.axes, along, rest, measured_N.quantile(USUAL).clamp_min(1e-3))
