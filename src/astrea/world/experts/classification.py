"""Compact classification: global tags over all kinds and the scene's attributes, no location.
Weak under clutter and at night.

Every cell of the trunk votes for every kind; the picture's belief is a soft maximum over the cells (multiple-instance
learning). The dense vote is also supervised directly, as a warm start for the trunk, but only global tags leave it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.experts.protocol import ExpertFeatures, Reading
from astrea.experts.vocabulary_part import speaking_of, word_channels
from astrea.world.experts.states import CompactExpert, hand_on_states
from astrea.world.experts.trunk import Trunk, conv
from astrea.world.experts.truth import SceneTruth, per_pixel
from astrea.world.scenes.vocabulary import CONDITIONS, KINDS, WORDS

GROUPS = 3
COUNTS = 6
STATE = 96
STRIDE = 4
KIND_NAMES: tuple[str, ...] = tuple(kind.name for kind in KINDS)


class ClassificationExpert(CompactExpert):
    """Three tag tokens (the kinds in three groups, soft) and one scene token (condition, number of things, sign).

    Args:
        only: words it speaks of; none = all. A token stays where its strongest word is one of them. states: whether
            there is one token with the state of the whole picture instead.
    """

    kind = "classification"
    weak_conditions: ClassVar[tuple[str, ...]] = ("clutter", "night")
    num_tokens = GROUPS + 1
    labels = (*KIND_NAMES, *CONDITIONS, *(str(n + 1) for n in range(COUNTS)), "sign", "classification")
    width = len(labels)
    slots = {"tag": (0, width - 1)}
    phrases = ("{tag} ;",)
    multi_label = ("tag",)

    def __init__(self, *, only: Sequence[str] = (), states: bool = False) -> None:
        super().__init__()
        self.states = states
        if states:
            self.num_tokens = 1
            hand_on_states(self, named=self.width - 1, state=STATE, phrases=("{feature} ;",), only=only)
        self.only = word_channels(only, self.labels[:-1])
        self.trunk = Trunk()
        _, w1, w2 = self.trunk.widths
        self.vote = nn.Sequential(conv(w1, w1), nn.Conv2d(w1, len(KINDS) + 1, 1))
        self.scene = nn.Sequential(nn.Linear(2 * w2 + len(KINDS), STATE), nn.ReLU())
        self.scene_head = nn.Linear(STATE, len(CONDITIONS) + COUNTS + 1)
        self.sharpness = nn.Parameter(torch.zeros(len(KINDS)))
        self.offset = nn.Parameter(torch.full((len(KINDS),), -2.0))

    def dense(self, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Votes (B, K + 1, h, w) logits (0 = nothing), tags (B, K) logits, scene (B, 5 + 6 + 1) logits, and the state
        (B, STATE) that the scene's are made of."""
        _, fine, deep = self.trunk(pixels_B3HW)
        votes = self.vote(fine)
        belief = votes.log_softmax(1)[:, 1:].flatten(2)
        # How many cells' worth of evidence: a log-sum over cells of the belief, scaled and shifted per kind.
        tags = (belief.logsumexp(-1)) * self.sharpness.exp() - self.offset
        pooled = torch.cat([deep.mean((2, 3)), deep.amax((2, 3)), belief.logsumexp(-1)], 1)
        state = self.scene(pooled)
        return votes, tags, self.scene_head(state), state

    def loss(self, truth: SceneTruth) -> Tensor:
        """BCE on the tags (present kinds weighted up), cross-entropies on the scene's attributes, dense warm start."""
        votes, tags, scene, _ = self.dense(truth.pixels_B3HW)
        target = torch.zeros_like(tags)
        b, n = truth.valid_BN.nonzero(as_tuple=True)
        target[b, truth.kind_BN[b, n]] = 1.0
        tag_loss = F.binary_cross_entropy_with_logits(tags, target, pos_weight=torch.tensor(3.0))
        condition, count, sign = scene.split([len(CONDITIONS), COUNTS, 1], 1)
        things = truth.valid_BN.sum(1).clamp(1, COUNTS) - 1
        scene_loss = (
            F.cross_entropy(condition, truth.condition_B)
            + F.cross_entropy(count, things)
            + F.binary_cross_entropy_with_logits(sign.squeeze(1), (truth.word_B < len(WORDS)).float())
        )
        painted = per_pixel(truth.kind_BN + 1, truth.instances_BHW[:, 1::STRIDE, 1::STRIDE], 0)
        weight = torch.tensor([0.3] + [1.0] * len(KINDS))
        return 10 * tag_loss + 0.3 * scene_loss + F.cross_entropy(votes, painted, weight)

    def found(self, pixels_B3HW: Tensor, *, states: bool) -> ExpertFeatures:
        _, tags, scene, state = self.dense(pixels_B3HW)
        if states:
            one_B1 = state.new_ones(len(state), 1)
            return ExpertFeatures(torch.cat([state, one_B1], 1).unsqueeze(1), one_B1)
        condition, count, sign = scene.split([len(CONDITIONS), COUNTS, 1], 1)
        found = tag_tokens(tags.sigmoid(), condition.softmax(1), count.softmax(1), sign.sigmoid())
        return speaking_of(found, self.only, self.width - 1)

    def readings(self, pixels_B3HW: Tensor) -> list[Reading]:
        _, tags, scene, _ = self.dense(pixels_B3HW)
        belief = tags.sigmoid()
        found = []
        for row in range(len(belief)):
            order = [i for i in belief[row].argsort(descending=True).tolist() if belief[row, i] > 0.5]
            condition = int(scene[row, : len(CONDITIONS)].argmax())
            labels = [KIND_NAMES[i] for i in order] + [CONDITIONS[condition]]
            scores = [belief[row, i].item() for i in order]
            scores.append(scene[row, : len(CONDITIONS)].softmax(0)[condition].item())
            found.append(Reading("classification", labels=labels, scores=scores))
        return found

    @classmethod
    def ideal(cls, truth: SceneTruth) -> ExpertFeatures:
        """The tokens that a faultless tagger would give (to pretrain the language model, never at evaluation)."""
        tags = torch.zeros(len(truth.kind_BN), len(KINDS))
        b, n = truth.valid_BN.nonzero(as_tuple=True)
        tags[b, truth.kind_BN[b, n]] = 1.0
        things = truth.valid_BN.sum(1).clamp(1, COUNTS) - 1
        return tag_tokens(
            tags,
            F.one_hot(truth.condition_B, len(CONDITIONS)).float(),
            F.one_hot(things, COUNTS).float(),
            (truth.word_B < len(WORDS)).float().unsqueeze(1),
        )


def tag_tokens(tags_BK: Tensor, condition: Tensor, count: Tensor, sign: Tensor) -> ExpertFeatures:
    """Spell tags as channels in the order of ``ClassificationExpert.labels``: GROUPS tag tokens, one scene token."""
    batch = len(tags_BK)
    tokens = tags_BK.new_zeros(batch, GROUPS + 1, ClassificationExpert.width)
    bounds = [len(KINDS) * g // GROUPS for g in range(GROUPS + 1)]
    for group, (start, stop) in enumerate(pairwise(bounds)):
        tokens[:, group, start:stop] = tags_BK[:, start:stop]
    tokens[:, GROUPS, len(KINDS) : -1] = torch.cat([condition, count, sign], 1)
    tokens[:, :, -1] = 1.0
    # How sharp the beliefs are: 1 where every tag is certain, 0 where all are a coin toss. Never exactly 0, because
    # "no tag in this group" is a statement too, not an empty slot.
    sharp = (2 * tags_BK - 1).abs().mean(1, keepdim=True).expand(-1, GROUPS)
    confidence = torch.cat([sharp, condition.amax(1, keepdim=True)], 1).clamp_min(0.01)
    return ExpertFeatures(tokens, confidence)
