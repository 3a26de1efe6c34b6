"""A loss of one's own: the confidence penalty of Pereyra et al. (arXiv 1701.06548) on the tokens of the answers.

    PYTHONPATH=docs/examples astrea train tiny \\
        'tune.losses={lm: 1.0, itc: 0.1, contribution: 0.2, reliability: 1.0, "answer_entropy:AnswerEntropy": 0.1}'

Letters: N words of this process's answers, V vocabulary.
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
        answers = step.answers(output)
        log_p_NV = F.log_softmax(answers.logits, -1)
        entropy_N = -(log_p_NV.exp() * log_p_NV).sum(-1)
        # Over the labels of the whole batch, not of these rows: the parts of several processes then add up.
        return -answers.mean(entropy_N)
