"""Gate weights that are expected from the question alone, before any expert has seen the picture.

A gate weight depends on the question and on what the expert says of the picture. Here the expert's mean token is
replaced by its mean over usual pictures; what is left depends on the question alone.

Letters: Q questions, E experts, T_e tokens of an expert, C channels of one, D language-model width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from astrea.alignment.matrix import ExpertMatrix
from astrea.common.float32 import in_full
from astrea.confidence.familiarity import MEAN_CONFIDENCE
from astrea.experts.protocol import ExpertFeatures
from astrea.fusion.gate import Gate


def usual_features(summary_F: Tensor, width: int, tokens: int) -> ExpertFeatures:
    """What an expert says of a usual picture: its mean token in each of its T_e slots, with its mean confidence.

    Args:
        summary_F: mean of `astrea.confidence.familiarity.summary` over pictures. width: C. tokens: T_e.
    """
    token, sure = summary_F[:width], summary_F[2 * width + MEAN_CONFIDENCE].clamp(1e-3, 1)
    return ExpertFeatures(token.expand(1, tokens, -1), sure.expand(1, tokens))


def expected_weights(gate: Gate, question_QD: Tensor, usual: ExpertMatrix, present_E: Tensor | None = None) -> Tensor:
    """Each expert's expected gate weight (Q, E), 0 for absent experts. They sum to less than 1: the rest is the null
    expert's, so the less a question needs any single expert, the smaller they all are.

    Args:
        usual: of one picture, of `usual_features`.
    """
    matrix = usual if present_E is None else usual.with_presence(present_E.unsqueeze(0))
    question_1QD = question_QD.unsqueeze(0).to(usual.tokens.dtype)
    weights_1QE: Tensor = in_full(gate, question_1QD, matrix, method="weigh")
    return weights_1QE[0]


def not_needed(weights_QE: Tensor, below: Tensor) -> Tensor:
    """The experts (Q, E), bool, whose weight is below a threshold (broadcast to them); never the one with the most."""
    return weights_QE < torch.minimum(below, weights_QE.amax(-1, keepdim=True))
