"""An expert whose words do not fit those of the others, judged without ever having seen one that is wrong.

Of sound experts' pictures the mean and the covariance of the figures of `astrea.experts.word_figures` are kept, and
the squared Mahalanobis distance that `SOUND` of them stay within. An expert is believed up to some multiple of that.
Where one is not, the expert goes without which the rest is most likely, and the others are judged again by the figures
in which it has no part. Or all are judged at once: that also disbelieves the sound one of two that contradict each
other where nobody else speaks of it, and so nobody has to be guessed at.

`astrea.model.backbone.AstreaModel.fuse` leaves out who is not believed. Source: our own.

Letters: B pictures, E experts, K figures of one expert.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.experts.corruption_kinds import Labels
from astrea.experts.word_figures import Features, Figures, WordFigures

SOUND = 0.97
"""Share of sound experts' pictures that a limit is to hold."""
MARGIN = 3.0
"""Times the limit up to which fusion believes: an expert that is wrong in part is of more use than none, so only those
go that are wrong altogether (docs/lab-notes.md)."""
SHRINK = 0.3
"""Added to the diagonal of the covariance of standardised figures."""
FARTHEST = 8.0
"""Standard deviations at which a figure is cut."""
MOST_EXPERTS = 8
"""There is a limit for each choice of experts that are heard: of more there would be thousands."""


@dataclass(frozen=True, slots=True)
class Usual:
    """The figures of one expert, where all are sound.

    mean, spread: (K,). covariance: (K, K) of the standardised figures, cut at `FARTHEST`. limits: (2^(E-1),) the
    squared distance that `SOUND` of the pictures stay within, by who is heard: bit i is that of the i-th other expert.
    """

    mean: Tensor
    spread: Tensor
    covariance: Tensor
    limits: Tensor

    def deviations(self, figures_BK: Tensor) -> Tensor:
        """Of each figure, in standard deviations (B, K)."""
        return ((figures_BK - self.mean) / self.spread).clamp(-FARTHEST, FARTHEST)

    def distances(self, deviations_BK: Tensor, used: list[int]) -> Tensor:
        """Mahalanobis' distances (B,), squared, by some of the figures."""
        inverse = torch.linalg.inv(self.covariance[used][:, used] + SHRINK * torch.eye(len(used)))
        far = deviations_BK[:, used]
        return torch.einsum("bi,ij,bj->b", far, inverse, far)


class WordAgreement:
    """See the module's description.

    Args:
        labels: of each expert's channels. usual: of the same experts, in the same order; see `learn_agreement`.
        margin: times the limit up to which an expert is believed.
    """

    def __init__(self, labels: Mapping[str, Labels], usual: Mapping[str, Usual], *, margin: float = MARGIN) -> None:
        self.margin = margin
        self.names = tuple(usual)
        self.figures = WordFigures({name: labels[name] for name in self.names})
        self.usual = usual

    @torch.no_grad()
    def believed(
        self, features: Features, present: Tensor | None = None, *, margin: float | None = None, at_once: bool = False
    ) -> Tensor:
        """Which experts (B, E) are believed, in the order of ``features``. Those whose words no other shares are, as
        are those that nothing is known of; one at least of those that are there is.

        Args:
            present: (B, E) bool, which experts are there at all; None = all. The others are not believed.
            margin: another one than its own.
            at_once: judge all by all others, and do not judge again without those that are not believed.

        Raises:
            AstreaError: the experts say other things than those whose figures are known.
        """
        figures = self.figures.of({name: features[name] for name in self.names})
        count = len(next(iter(features.values())).tokens)
        order = [tuple(features).index(name) for name in self.names]
        there = torch.ones(count, len(features), dtype=torch.bool) if present is None else present.cpu().clone()
        judged, least = Judged(self.usual, figures), math.log(self.margin if margin is None else margin)
        there[:, order] = self._heard(judged, there[:, order], least, at_once)
        return there.to(next(iter(features.values())).tokens.device)

    def _heard(self, judged: Judged, heard_BE: Tensor, least: float, at_once: bool) -> Tensor:
        """Those of some experts that are believed (B, E). ``least``: the score from which one is not."""
        if at_once:
            return heard_BE & (judged.scores(heard_BE) <= least)
        for _ in range(len(self.names) - 1):
            doubted_B = (judged.scores(heard_BE).amax(1) > least) & (heard_BE.sum(1) > 1)
            if not doubted_B.any():
                break
            heard_BE = torch.where(doubted_B.unsqueeze(1), judged.without_one(heard_BE), heard_BE)
        return heard_BE


class Judged:
    """Some pictures' figures, beside what is usual.

    Args:
        usual: of each expert. figures: of the same experts.

    Raises:
        AstreaError: there are more or fewer figures of an expert than are known.
    """

    def __init__(self, usual: Mapping[str, Usual], figures: Mapping[str, Figures]) -> None:
        self.usual, self.names = usual, tuple(usual)
        self.partners = {name: [other for other, _ in own] for name, own in figures.items()}
        self.far: dict[str, Tensor] = {}
        for name, own in figures.items():
            if len(own) != len(usual[name].mean):
                raise AstreaError(
                    f"what is usual for {name} has {len(usual[name].mean)} figures, and its words give {len(own)}",
                    "set config.agreement=False, or train the model again with model.agreement=true",
                )
            self.far[name] = usual[name].deviations(stacked(own))

    def scores(self, heard_BE: Tensor, rows_B: Tensor | None = None) -> Tensor:
        """Log of the distance over its limit (B, E); -inf of experts that are not heard, or that nobody could
        contradict.

        Args:
            rows_B: bool, which pictures ``heard_BE`` is about; None = all.
        """
        found = torch.full(heard_BE.shape, -torch.inf)
        at_B = torch.arange(len(heard_BE)) if rows_B is None else rows_B.nonzero()[:, 0]
        for heard_E in heard_BE.unique(dim=0):
            mine_B = (heard_BE == heard_E).all(1)
            for index in heard_E.nonzero()[:, 0].tolist():
                if any(other is not None for other in self.partners[self.names[index]]):
                    found[mine_B, index] = self._score(index, at_B[mine_B], heard_E)
        return found

    def without_one(self, heard_BE: Tensor) -> Tensor:
        """The same without the expert whose absence leaves the most likely rest (B, E)."""
        worst = torch.full(heard_BE.shape, torch.inf)
        for index in range(len(self.names)):
            rest = heard_BE.clone()
            rest[:, index] = False
            there_B = heard_BE[:, index]
            worst[there_B, index] = self.scores(rest[there_B], there_B).amax(1)
        return heard_BE.scatter(1, worst.argmin(1, keepdim=True), False)

    def _score(self, index: int, at: Tensor, heard_E: Tensor) -> Tensor:
        """Log of the distance over its limit (B,), of the pictures ``at``."""
        name = self.names[index]
        usual, used = self.usual[name], used_figures(self.partners[name], self.names, heard_E)
        distance = usual.distances(self.far[name][at], used) / usual.limits[place_of(index, heard_E)]
        # What is no number fits nobody.
        return distance.log().nan_to_num(torch.inf, torch.inf)


def learn_agreement(features: Features, labels: Mapping[str, Labels]) -> WordAgreement:
    """What is usual in pictures of sound experts.

    Args:
        labels: of each expert's channels.

    Raises:
        AstreaError: more experts than `MOST_EXPERTS`.
    """
    names = tuple(features)
    if len(names) > MOST_EXPERTS:
        raise AstreaError(
            f"{len(names)} experts, and agreement is judged among at most {MOST_EXPERTS}", "set model.agreement=false"
        )
    usual = {}
    for index, (name, own) in enumerate(WordFigures(labels).of(features).items()):
        values_BK, partners = stacked(own), [other for other, _ in own]
        mean, spread = values_BK.mean(0), values_BK.std(0).clamp_min(1e-3)
        fresh = Usual(mean, spread, torch.empty(0), torch.empty(0))
        far_BK = fresh.deviations(values_BK)
        known = Usual(mean, spread, torch.cov(far_BK.T).reshape(len(mean), len(mean)), torch.empty(0))
        limits = torch.ones(2 ** (len(names) - 1))
        for others in product((False, True), repeat=len(names) - 1):
            heard_E = torch.tensor([*others[:index], True, *others[index:]])
            distances = known.distances(far_BK, used_figures(partners, names, heard_E))
            limits[place_of(index, heard_E)] = distances.quantile(SOUND).clamp_min(1e-6)
        usual[name] = Usual(mean, spread, known.covariance, limits)
    return WordAgreement(labels, usual)


def stacked(figures: Figures) -> Tensor:
    """(B, K) on the processor."""
    return torch.stack([values for _, values in figures], -1).cpu()


def used_figures(partners: list[str | None], names: tuple[str, ...], heard_E: Tensor) -> list[int]:
    """The figures in which nobody has a part who is not heard."""
    there = {names[i] for i in heard_E.nonzero()[:, 0].tolist()}
    return [at for at, other in enumerate(partners) if other is None or other in there]


def place_of(index: int, heard_E: Tensor) -> int:
    """Where the limit of an expert for these that are heard stands in `Usual.limits`."""
    others = [bool(heard) for at, heard in enumerate(heard_E.tolist()) if at != index]
    return sum(1 << place for place, heard in enumerate(others) if heard)
