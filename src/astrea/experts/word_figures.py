"""Figures of how well experts agree, in the words that they declare.

All that is known of an expert is what it declares: the names of its channels, its confidences and its places. Figures
of a picture, for each expert e and each other expert f:

* for every aspect (names, colours, sides, places across and down) in which the two share words: how much of what e
  says f does not, and the reverse; and the cosine of the two;
* the distance from e's slots to f's nearest, and whether the two name and colour the same there;

and of e alone: how alike its slots are, values outside of 0..1, how sure its names are, how large its tokens are, how
many slots are filled, and whether its ranks go from left to right. `astrea.experts.word_agreement` reads them.
Source: our own.

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


class WordFigures:
    """See the module's description.

    Args:
        labels: of the channels of each expert.
    """

    def __init__(self, labels: Mapping[str, Labels]) -> None:
        self.names, self.labels = tuple(labels), labels
        self.words = {name: aspects(labels[name], name) for name in self.names}

    def of(self, features: Features) -> dict[str, Figures]:
        """Every figure of every expert."""
        # What was narrowed for the language model is compared in full.
        full = {name: features[name].map(Tensor.float) for name in self.names}
        said = {n: (p.tokens.clamp(0, 1) * p.confidence.clamp(0, 1).unsqueeze(-1)).amax(1) for n, p in full.items()}
        found: dict[str, Figures] = {name: self._alone(name, full[name]) for name in self.names}
        for e in self.names:
            for f in (name for name in self.names if name != e):
                for own, other in self._shared(e, f):
                    a, b = said[e][:, own], said[f][:, other]
                    unheard = (a * (1 - b)).sum(1) / a.sum(1).clamp_min(0.05)
                    found[e] += [(f, unheard), (f, F.cosine_similarity(a, b, dim=1, eps=0.05))]
                    found[f].append((e, unheard))
                for values in self._together(e, f, full):
                    found[e].append((f, values))
                    found[f].append((e, values))
        return found

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
        itself = torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device)
        pairs = filled[:, :, None] & filled[:, None] & ~itself
        alike = ((unit @ unit.transpose(1, 2)) * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp_min(1)
        found = [alike]
        if words := [i for i, word in enumerate(labels) if word]:
            named = tokens[..., words]
            outside = (named.clamp_max(0).abs() + (named - 1).clamp_min(0)).mean(-1)
            found.append(mean_over(outside, part))
        if names := list(channels_of(labels).names):
            found.append(mean_over(tokens[..., names].amax(-1), part))
        found += [mean_over(tokens.square().sum(-1), part), filled.double().mean(1).to(tokens.dtype)]
        ranked = [i for i, word in enumerate(labels) if word in ORDINALS]
        if part.places is not None and ranked:
            order = torch.arange(len(ranked), device=tokens.device)
            rank = (tokens[..., ranked].clamp(0, 1) * order).sum(-1) / len(ranked)
            x = part.places[..., 0].nan_to_num(0.5)
            a, b = (v - mean_over(v, part).unsqueeze(1) for v in (rank, x))
            scale = (mean_over(a.square(), part) * mean_over(b.square(), part)).clamp_min(1e-6).sqrt()
            found.append(mean_over(a * b, part) / scale)
        return [(None, values) for values in found]
