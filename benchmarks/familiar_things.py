"""Which findings are of things that features were taught, and which of new ones: the allocator of `seen_and_new.py`.

A finding of an expert with two ways of knowing has features, which were aligned to the words of captions, and the
expert's own words. What tells whether the features know what they look at is measured by `SIGNALS`; a logistic
regression per expert, fitted on validation things, makes one number of them, which findings at the same place share.

Letters: B pictures, T tokens of the expert matrix, F findings with two ways, S signals, C features, L own words, M
findings of training pictures, N samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.alignment.alignment import Alignment
from astrea.alignment.known_words import KnownWords
from astrea.alignment.matrix import ExpertMatrix
from astrea.confidence.calibration import logistic
from astrea.evaluation.generate import Features
from astrea.experts.bank import ExpertBank
from astrea.world.photographs.scene import PhotoScene

SIGNALS = (
    "cosine with the nearest word that was taught",
    "how much nearer that word is than the next",
    "how usual the expert's own words are in training",
    "cosine with the nearest findings of training",
)
DESIGNS = {"the nearest word alone": (0,), "features and own words": (0, 1, 2, 3)}
"""Which signals are read."""

RADII = (0.0, 0.1, 0.2)
"""Findings so near to each other (shares of the picture) are of one thing, may be."""

NEAREST, FLOOR = 3, 1e-4


@dataclass(frozen=True)
class Layout:
    """Where findings with two ways stand in the expert matrix. expert: (F,). token: (F,), that of the features.
    finding: (T,), of which finding a token is, -1 for all others."""

    expert: Tensor
    token: Tensor
    finding: Tensor


def two_ways(alignment: Alignment) -> list[str]:
    """The experts that have features, and words of their own for the same finding."""
    adapters = {name: alignment.adapters[name] for name in alignment.names}
    return [name for name, adapter in adapters.items() if any(adapter.features) and max(adapter.phrase) > 0]


def layout(alignment: Alignment, matrix: ExpertMatrix) -> Layout:
    """The layout of a model's findings."""
    assert matrix.features is not None
    experts, tokens = [], []
    finding = torch.full((len(matrix.expert),), -1)
    for name in two_ways(alignment):
        index = alignment.names.index(name)
        mine = (matrix.expert == index).nonzero().flatten()
        first = sum(map(len, tokens))
        finding[mine] = first + torch.arange(len(mine)) // alignment.each[index]
        tokens.append(mine[matrix.features[mine]])
        experts.append(torch.full((len(tokens[-1]),), index))
    return Layout(torch.cat(experts), torch.cat(tokens), finding)


@dataclass(frozen=True)
class Memory:
    """What an expert said of training pictures. mean: (C,), of its features. unit: (M, C), centred by it. said: (L,),
    how often each of its words was."""

    mean: Tensor
    unit: Tensor
    said: Tensor


def channels(experts: ExpertBank, name: str) -> tuple[slice, slice]:
    """Where an expert's features and its own words are."""
    slots = experts[name].slots
    return slice(*slots["feature"]), slice(*slots["thing" if "thing" in slots else "category"])


def memory(experts: ExpertBank, features: Features) -> dict[str, Memory]:
    """The experts' memory of training pictures, from their features of those."""
    found = {}
    for name, part in features.items():
        feature, words = channels(experts, name)
        tokens_MC = part.tokens[part.confidence > 0].float()
        mean_C = tokens_MC[:, feature].mean(0)
        unit_MC = F.normalize(tokens_MC[:, feature] - mean_C, dim=-1)
        found[name] = Memory(mean_C, unit_MC, tokens_MC[:, words].mean(0))
    return found


@dataclass(frozen=True)
class Findings:
    """signals: (B, F, S). place: (B, F, 2). there: (B, F) bool. expert: (F,)."""

    signals: Tensor
    place: Tensor
    there: Tensor
    expert: Tensor


def findings(
    experts: ExpertBank,
    known: KnownWords,
    remembered: dict[str, Memory],
    features: Features,
    matrix: ExpertMatrix,
    where: Layout,
) -> Findings:
    """What can be told of the findings of some pictures."""
    unit_BFD = F.normalize(matrix.tokens[:, where.token].to(known.mean) - known.mean, dim=-1)
    best_BF2 = (unit_BFD @ known.vectors.T).topk(2, -1).values
    usual, near = [], []
    for name, mine in remembered.items():
        feature, words = channels(experts, name)
        tokens_BKC = features[name].tokens.float()
        usual.append(torch.log(tokens_BKC[..., words] @ mine.said + FLOOR))
        unit_BKC = F.normalize(tokens_BKC[..., feature] - mine.mean, dim=-1)
        near.append((unit_BKC @ mine.unit.T).topk(min(NEAREST, len(mine.unit)), -1).values.mean(-1))
    signals = [best_BF2[..., 0], best_BF2[..., 0] - best_BF2[..., 1], torch.cat(usual, 1), torch.cat(near, 1)]
    return Findings(
        torch.stack(signals, -1).float(), matrix.places[:, where.token], matrix.valid[:, where.token], where.expert
    )


@dataclass(frozen=True)
class Allocator:
    """design: one of `DESIGNS`. mean, spread, weights: by expert (E, S); bias: (E,). radius: see `RADII`. threshold:
    the log-odds of being new from which on an expert's own words are believed."""

    design: str
    mean: Tensor
    spread: Tensor
    weights: Tensor
    bias: Tensor
    radius: float
    threshold: float

    def odds(self, found: Findings) -> Tensor:
        """The log-odds that a finding is of a new thing, (B, F); a finding shares those of its neighbours."""
        signals = found.signals[..., list(DESIGNS[self.design])]
        scaled = (signals - self.mean[found.expert]) / self.spread[found.expert]
        odds_BF = (scaled * self.weights[found.expert]).sum(-1) + self.bias[found.expert]
        return pooled(odds_BF, found, self.radius)

    def new(self, found: Findings) -> Tensor:
        """Which findings are of new things, (B, F) bool."""
        return self.odds(found) > self.threshold


def pooled(odds_BF: Tensor, found: Findings, radius: float) -> Tensor:
    """The mean over all findings that are there within a radius, oneself included."""
    far_BFF = (found.place.unsqueeze(2) - found.place.unsqueeze(1)).square().sum(-1).sqrt()
    near_BFF = (far_BFF <= radius) & found.there.unsqueeze(1)
    near_BFF |= torch.eye(odds_BF.shape[1], dtype=torch.bool)
    weight_BFF = near_BFF / near_BFF.sum(-1, keepdim=True)
    return (weight_BFF @ odds_BF.unsqueeze(-1)).squeeze(-1)


def owners(found: Findings, scenes: Sequence[PhotoScene]) -> Tensor:
    """Which thing of its scene each finding lies on: (B, F), -1 for none; of several the one with the smallest box."""
    owner_BF = torch.full(found.there.shape, -1)
    for row, scene in enumerate(scenes):
        order = sorted(range(len(scene.things)), key=lambda at: -area(scene.things[at].box))
        for at in order:
            x0, y0, x1, y1 = (edge / scene.spec.canvas for edge in scene.things[at].box)
            x, y = found.place[row].unbind(-1)
            owner_BF[row, (x > x0) & (x < x1) & (y > y0) & (y < y1) & found.there[row]] = at
    return owner_BF


def area(box: tuple[int, int, int, int]) -> int:
    """Of a box, in pixels."""
    return (box[2] - box[0]) * (box[3] - box[1])


@dataclass(frozen=True)
class Things:
    """Findings of scenes with the truth: owner: (B, F), see `owners`. names: of each scene's things, in order."""

    findings: Findings
    owner: Tensor
    names: list[list[str]]

    def chosen(self, new_BF: Tensor, wanted: frozenset[str]) -> list[bool]:
        """Of every thing with a wanted name and with a finding: whether most of its findings are taken for new."""
        votes = []
        for row, names in enumerate(self.names):
            for at, name in enumerate(names):
                mine = self.owner[row] == at
                if name in wanted and mine.any():
                    votes.append(float(new_BF[row, mine].float().mean()) >= 0.5)
        return votes

    def balanced(self, new_BF: Tensor, seen: frozenset[str], new: frozenset[str]) -> tuple[float, float]:
        """The share of right choices for seen and for new things."""
        kept, told = self.chosen(new_BF, seen), self.chosen(new_BF, new)
        return 1 - sum(kept) / max(1, len(kept)), sum(told) / max(1, len(told))


def fitted(things: Things, seen: frozenset[str], new: frozenset[str]) -> list[tuple[float, Allocator]]:
    """Allocators of every design and radius, fitted on validation things, the best first: the mean share of right
    choices for seen and for new ones is as high as their threshold makes it."""
    truth_BF = torch.full(things.owner.shape, -1)
    for row, names in enumerate(things.names):
        for at, name in enumerate(names):
            truth_BF[row, things.owner[row] == at] = 1 if name in new else 0 if name in seen else -1
    found = []
    for design, columns in DESIGNS.items():
        whole = regression(things.findings, truth_BF, columns)
        for radius in RADII:
            allocator = Allocator(design, *whole, radius, 0.0)
            odds_BF = allocator.odds(things.findings)
            tried = odds_BF[truth_BF >= 0].quantile(torch.linspace(0.02, 0.98, 49)).tolist()
            rated = [(sum(things.balanced(odds_BF > each, seen, new)) / 2, each) for each in tried]
            score, threshold = max(rated)
            found.append((score, Allocator(design, *whole, radius, threshold)))
    return sorted(found, key=lambda one: -one[0])


def regression(found: Findings, truth_BF: Tensor, columns: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, spread, weights (E, S) and bias (E,) of some signals; an expert of which nothing is known has no say."""
    experts = int(found.expert.max()) + 1
    mean, spread = torch.zeros(experts, len(columns)), torch.ones(experts, len(columns))
    weights, bias = torch.zeros(experts, len(columns)), torch.zeros(experts)
    for index in found.expert.unique().tolist():
        mine_BF = (truth_BF >= 0) & found.there & (found.expert == index)
        if not mine_BF.any():
            continue
        signals_NS = found.signals[mine_BF][:, list(columns)]
        mean[index], spread[index] = signals_NS.mean(0), signals_NS.std(0).clamp_min(1e-3)
        weights[index], bias[index] = logistic((signals_NS - mean[index]) / spread[index], truth_BF[mine_BF].float())
    return mean, spread, weights, bias
