"""A loss of one's own: the confidence penalty of Pereyra et al. (arXiv 1701.06548) on the tokens of the answers.

    PYTHONPATH=docs/examples astrea train tiny \\
        'tune.losses={lm: 1.0, itc: 0.1, contribution: 0.2, reliability: 1.0, "answer_entropy:AnswerEntropy": 0.1}'

Letters: R rows of this process, L text length, V words.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from astrea.model.outputs import AstreaOutput
from astrea.training.losses.protocol import InstructLoss
from astrea.training.stages.step import InstructStep


class AnswerEntropy(InstructLoss):
    """Minus the mean entropy, in nats, of the words predicted for the answers: sure answers cost more."""

    def __call__(self, step: InstructStep, output: AstreaOutput) -> Tensor:
        packed = step.inputs  # of this process's rows
        log_p_RLV = F.log_softmax(output.logits[:, :-1].float(), -1)  # position l predicts word l + 1
        entropy_RL = -(log_p_RLV.exp() * log_p_RLV).sum(-1)
        weight_RL = (packed["labels"][:, 1:] != -100) * packed["label_weights"][:, 1:]
        # Over the labels of the whole batch, not of these rows: the parts of several processes then add up.
        return -(entropy_RL * weight_RL).sum() / step.batch.labelled
