"""The loss of the reliability head: experts are corrupted on purpose, and the head detects which.

Letters: B pictures, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.experts.corruption import corrupt, draw_experts, draw_stuck
from astrea.experts.corruption_kinds import corrupt_by_kind
from astrea.experts.protocol import index_select
from astrea.fusion.reliability import ReliabilityHead
from astrea.fusion.training import TrainingStep

PICTURES, CORRUPTED = 256, 0.75
"""Pictures per step that the head learns from, and the share of them with a corrupted expert."""


def reliability_loss(head: ReliabilityHead, step: TrainingStep, kinds: Sequence[str] = ()) -> Tensor:
    """Binary cross-entropy of the head's logits, over every present expert of some pictures.

    These are more pictures than are answered about, with corruption in most of them: it has to be common here to be
    learned, and rare where answers are learned. Experts go missing as elsewhere. Adapters do not learn from this loss.

    Args:
        kinds: of corruption (`astrea.experts.corruption_kinds`); () = another picture, and stuck slots in a quarter.
    """
    generator = step.generator("judging")
    features = step.pictures(PICTURES, generator)
    if features is None:
        return next(head.parameters()).sum() * 0
    count, experts = len(next(iter(features.values())).tokens), len(features)
    local = step.local_slice(count)
    corrupted = draw_experts(count, experts, CORRUPTED, generator)
    lost = draw_experts(count, experts, step.settings.expert_dropout, generator)
    if kinds:
        features, corrupted = corrupt_by_kind(features, step.labels, corrupted, kinds, generator)
    else:
        features = corrupt(features, corrupted, draw_stuck(count, generator))
    present, reliable = (drawn.unsqueeze(1) != torch.arange(experts) for drawn in (lost, corrupted))
    here, reliable = present[local].to(step.device), reliable[local].to(step.device)
    matrix = step.align(index_select(features, local), here)
    agreements = head.agreements(matrix)
    head.observe(agreements, lambda rows: step.gather(rows, count))
    logits, wanted = head(matrix, agreements)[here], reliable[here].float()
    # With more processes than pictures some have none, and a mean over nothing would be NaN.
    wrong = F.binary_cross_entropy_with_logits(logits, wanted) if len(wanted) else logits.sum()
    return wrong * (len(wanted) / max(1, int(present.sum())))
