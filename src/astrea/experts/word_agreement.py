"""An expert whose words do not fit those of the others, judged without ever having seen one that is wrong.

All that is known of an expert is what it declares: the names of its channels, its confidences and its places. Figures
of a picture, for each expert e and each other expert f:

* for every aspect (names, colours, sides, places across and down) in which the two share words: how much of what e
  says f does not, and the reverse; and the cosine of the two;
* the distance from e's slots to f's nearest, and whether the two name and colour the same there;

and of e alone: how alike its slots are, values outside of 0..1, how sure its names are, how large its tokens are, how
many slots are filled, and whether its ranks go from left to right. Of sound experts' pictures the mean and the
covariance of these are kept. An expert is believed where its Mahalanobis distance is below that of `SOUND` of those.
Where one is not, the expert goes without which the rest is most likely, and the others are judged again by the
figures in which it has no part. Or all are judged at once: that also disbelieves the sound one of two that contradict
each other where nobody else speaks of it, and so nobody has to be guessed at.

Fusion does not read it yet: ``benchmarks/reliability_kinds.py`` sets it beside the reliability head, which has to see
wrong experts in training. Source: our own.

Letters: B pictures, T slots of an expert, C its channels, K figures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.experts.corruption_kinds import Labels, channels_of
from astrea.experts.protocol import ORDINALS, PLACE_WORDS, ExpertFeatures

SOUND = 0.97
"""Of the sound experts' pictures that are to be believed."""
SHRINK = 0.3
"""Added to the diagonal of the covariance of standardised figures."""
FARTHEST = 8.0
"""Standard deviations at which a figure is cut."""

Features = Mapping[str, ExpertFeatures]
Figures = list[tuple[str | None, Tensor]]
"""Of one expert: which other one has a part in a figure, and its value (B,) for each picture."""


def aspects(labels: Labels, own: str) -> dict[str, dict[str, int]]:
    """The words of an expert by what they are about: aspect -> word -> channel."""
    channels = channels_of(labels)
    placed = {*PLACE_WORDS, *ORDINALS, "sure", own}
    return {
        "colour": {str(labels[i]): i for i in channels.colours},
        "name": {
            word: i
            for i, word in enumerate(labels)
            if word and word not in placed and i not in channels.colours and not re.search(r"\d", word)
        },
        "side": {word: i for i, word in enumerate(labels) if word in PLACE_WORDS},
        "across": {str(labels[i]): i for i in channels.across},
        "down": {word: i for i, word in enumerate(labels) if word and re.fullmatch(r"y\d+", word)},
    }


def mean_over(values_BT: Tensor, part: ExpertFeatures) -> Tensor:
    """Weighted by the confidence of each slot (B,)."""
    return (values_BT * part.confidence).sum(1) / part.confidence.sum(1).clamp_min(1e-3)


class WordAgreement:
    """See the module's description.

    Args:
        features: of pictures of sound experts. labels: of each expert's channels.
    """

    def __init__(self, features: Features, labels: Mapping[str, Labels]) -> None:
        self.names, self.labels = tuple(features), labels
        self.words = {name: aspects(labels[name], name) for name in self.names}
        usual = self.figures(features)
        self.usual = {name: self._stacked(figures) for name, figures in usual.items()}
        self.partners = {name: [f for f, _ in figures] for name, figures in usual.items()}

    def figures(self, features: Features) -> dict[str, Figures]:
        """Every figure of every expert."""
        said = {n: (p.tokens.clamp(0, 1) * p.confidence.clamp(0, 1).unsqueeze(-1)).amax(1) for n, p in features.items()}
        found: dict[str, Figures] = {name: self._alone(name, features[name]) for name in self.names}
        for e in self.names:
            for f in (name for name in self.names if name != e):
                for own, other in self._shared(e, f):
                    a, b = said[e][:, own], said[f][:, other]
                    unheard = (a * (1 - b)).sum(1) / a.sum(1).clamp_min(0.05)
                    found[e] += [(f, unheard), (f, F.cosine_similarity(a, b, dim=1, eps=0.05))]
                    found[f].append((e, unheard))
                for values in self._together(e, f, features):
                    found[e].append((f, values))
                    found[f].append((e, values))
        return found

    def believed(self, features: Features, *, at_once: bool = False) -> Tensor:
        """Which experts (B, E) are believed.

        Args:
            at_once: judge all by all others, and do not judge again without those that are not believed.
        """
        figures = {name: self._stacked(each) for name, each in self.figures(features).items()}
        heard = torch.ones(len(next(iter(figures.values()))), len(self.names), dtype=torch.bool)
        if at_once:
            return self._scores(figures, heard) <= 0
        for _ in range(len(self.names) - 1):
            doubted = self._scores(figures, heard).amax(1) > 0
            if not doubted.any():
                break
            heard = torch.where(doubted.unsqueeze(1), self._without_one(figures, heard), heard)
        return heard

    def _without_one(self, figures: Mapping[str, Tensor], heard_BE: Tensor) -> Tensor:
        """The same without the expert whose absence leaves the most likely rest (B, E)."""
        worst = torch.full(heard_BE.shape, torch.inf)
        for index in range(len(self.names)):
            rest = heard_BE.clone()
            rest[:, index] = False
            there = heard_BE[:, index]
            worst[there, index] = self._scores({n: f[there] for n, f in figures.items()}, rest[there]).amax(1)
        return heard_BE.scatter(1, worst.argmin(1, keepdim=True), False)

    def _scores(self, figures: Mapping[str, Tensor], heard_BE: Tensor) -> Tensor:
        """Above 0 what is less likely than is believed (B, E); of experts that are not heard -inf."""
        found = torch.full(heard_BE.shape, -torch.inf)
        for heard_E in heard_BE.unique(dim=0):
            rows = (heard_BE == heard_E).all(1)
            for index, name in enumerate(self.names):
                if heard_E[index]:
                    found[rows, index] = self._score(name, figures[name][rows], heard_E)
        return found

    def _score(self, name: str, figures_BK: Tensor, heard_E: Tensor) -> Tensor:
        """Log of the distance over the largest that is believed (B,)."""
        there = {self.names[i] for i in heard_E.nonzero()[:, 0].tolist()}
        used = [at for at, other in enumerate(self.partners[name]) if other is None or other in there]
        usual = self.usual[name][:, used]
        mean, spread = usual.mean(0), usual.std(0).clamp_min(1e-3)
        one, other = (((v - mean) / spread).clamp(-FARTHEST, FARTHEST) for v in (usual, figures_BK[:, used]))
        inverse = torch.linalg.inv(torch.cov(one.T) + SHRINK * torch.eye(len(used)))
        near, far = (torch.einsum("bi,ij,bj->b", v, inverse, v) for v in (one, other))
        return (far / near.quantile(SOUND)).log()

    def _stacked(self, figures: Figures) -> Tensor:
        return torch.stack([values for _, values in figures], -1)

    def _shared(self, e: str, f: str, only: Sequence[str] | None = None) -> list[tuple[list[int], list[int]]]:
        """The channels of both that say the same words, for each aspect of two words or more."""
        found = []
        for aspect, words in self.words[e].items():
            both = [word for word in words if word in self.words[f][aspect]]
            if len(both) > 1 and (only is None or aspect in only):
                found.append(([words[word] for word in both], [self.words[f][aspect][word] for word in both]))
        return found

    def _together(self, e: str, f: str, features: Features) -> list[Tensor]:
        """How far e's slots are from the nearest of f, and what the two say there."""
        own, other = features[e], features[f]
        if own.places is None or other.places is None:
            return []
        square = (own.places[:, :, None] - other.places[:, None]).square().sum(-1).nan_to_num(4.0)
        nearest, at = square.masked_fill(~(other.confidence > 0).unsqueeze(1), 4.0).min(-1)
        found = [mean_over(nearest.sqrt().clamp_max(0.5), own)]
        for mine, theirs in self._shared(e, f, ("name", "colour")):
            said = other.tokens[..., theirs].gather(1, at.unsqueeze(-1).expand(-1, -1, len(theirs)))
            found.append(mean_over(F.cosine_similarity(own.tokens[..., mine], said, dim=-1, eps=0.05), own))
        return found

    def _alone(self, name: str, part: ExpertFeatures) -> Figures:
        """Figures in which no other expert has a part."""
        labels, tokens, filled = self.labels[name], part.tokens, part.confidence > 0
        unit = F.normalize(tokens, dim=-1)
        pairs = filled[:, :, None] & filled[:, None] & ~torch.eye(tokens.shape[1], dtype=torch.bool)
        alike = ((unit @ unit.transpose(1, 2)) * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp_min(1)
        named = tokens[..., [i for i, word in enumerate(labels) if word]]
        outside = (named.clamp_max(0).abs() + (named - 1).clamp_min(0)).mean(-1)
        sure = tokens[..., list(channels_of(labels).names)].amax(-1)
        found = [alike, mean_over(outside, part), mean_over(sure, part), mean_over(tokens.square().sum(-1), part)]
        found.append(filled.double().mean(1).to(tokens.dtype))
        ranked = [i for i, word in enumerate(labels) if word in ORDINALS]
        if part.places is not None and ranked:
            rank = (tokens[..., ranked].clamp(0, 1) * torch.arange(len(ranked))).sum(-1) / len(ranked)
            x = part.places[..., 0].nan_to_num(0.5)
            a, b = (v - mean_over(v, part).unsqueeze(1) for v in (rank, x))
            scale = (mean_over(a.square(), part) * mean_over(b.square(), part)).clamp_min(1e-6).sqrt()
            found.append(mean_over(a * b, part) / scale)
        return [(None, values) for values in found]
