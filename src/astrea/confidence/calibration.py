"""The probability that an answer is right, from its signs: logistic regression, fitted on validation answers.

Two of them: one for answers, one for refusals, of which other signs mean other things. (Platt 1999 has one sign; Guo et
al. 2017, arXiv 1706.04599, why the probability of the words alone will not do.)

Letters: B answers, S signs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.confidence.signals import Signs

PENALTY = 0.02
FEWEST = 8
"""Right and wrong answers, each, below which their signs teach nothing and the rate of right ones has to do."""
MOST_LOST = 0.02
"""Share of the answerable validation questions that may be declined though the answer is right."""
STEPS = 60


@dataclass(frozen=True, slots=True)
class Calibration:
    """mean, spread: (S,) of the signs. weights: (2, S) and bias: (2,), first of answers, then of refusals. threshold:
    () the probability below which an answer is declined."""

    mean: Tensor
    spread: Tensor
    weights: Tensor
    bias: Tensor
    threshold: Tensor

    def right(self, signs: Signs) -> Tensor:
        """(B,) probability that each answer is right."""
        scaled_BS = (signs.numbers() - self.mean) / self.spread
        logits_B2 = scaled_BS @ self.weights.T + self.bias
        return logits_B2.gather(1, signs.refused.long().unsqueeze(1)).squeeze(1).sigmoid()

    def tensors(self) -> dict[str, Tensor]:
        """Every number, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def learn_calibration(signs: Signs, right: Tensor, answerable: Tensor) -> Calibration:
    """Fit both regressions, then choose the threshold that decides best what can be answered.

    Args:
        right: (B,) bool. answerable: (B,) bool, whether the question has an answer in the picture.
    """
    numbers_BS = signs.numbers()
    mean, spread = numbers_BS.mean(0), numbers_BS.std(0).clamp_min(1e-3)
    scaled_BS = (numbers_BS - mean) / spread
    fits = [logistic(scaled_BS[mine], right[mine].float()) for mine in (~signs.refused, signs.refused)]
    weights, bias = torch.stack([w for w, _ in fits]), torch.stack([b for _, b in fits])
    found = Calibration(mean, spread, weights, bias, torch.tensor(0.0))
    threshold = best_threshold(found.right(signs), signs.refused, right, answerable)
    return Calibration(mean, spread, weights, bias, torch.tensor(threshold))


def logistic(scaled_BS: Tensor, right_B: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (S,) and bias () of the fitted regression, drawn a little towards 0."""
    size = scaled_BS.shape[1]
    rate = (right_B.sum() + 1) / (len(right_B) + 2)
    if min(right_B.sum(), len(right_B) - right_B.sum()) < FEWEST:
        return torch.zeros(size), torch.logit(rate)
    # A training may call this: nothing random is drawn, and gradients are enabled only here.
    with torch.enable_grad(), torch.inference_mode(False):
        inputs, targets = scaled_BS.clone(), right_B.clone()
        line = torch.cat([torch.zeros(size), torch.logit(rate).reshape(1)]).requires_grad_()
        optimizer = torch.optim.LBFGS([line], max_iter=STEPS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            logits = inputs @ line[:-1] + line[-1]
            value = F.binary_cross_entropy_with_logits(logits, targets) + PENALTY * line[:-1].square().mean()
            value.backward()
            return value

        optimizer.step(loss)
    return line.detach()[:-1].clone(), line.detach()[-1].clone()


def best_threshold(sure: Tensor, refused: Tensor, right: Tensor, answerable: Tensor) -> float:
    """The probability from which on answers are given, so that most questions are rightly answered or declined: both
    kinds count alike, and at most `MOST_LOST` of the answerable questions lose a right answer by it."""
    best, chosen = -1.0, 0.0
    allowed = MOST_LOST * max(1, int(answerable.sum()))
    for threshold in (number / 100 for number in range(100)):
        declined = refused | (sure < threshold)
        if int((declined & ~refused & right & answerable).sum()) > allowed:
            break
        decided = share(~declined, answerable) + share(declined, ~answerable)
        if decided > best:
            best, chosen = decided, threshold
    return chosen


def share(what: Tensor, among: Tensor) -> float:
    """Share of ``among`` for which ``what`` holds; 0 where there are none."""
    return float((what & among).sum()) / max(1, int(among.sum()))


def calibration_error(sure: Tensor, right: Tensor, bins: int = 10) -> float:
    """Expected calibration error: how far stated probabilities are from the rate of right answers, on average over
    equally wide bins, each weighted by its answers."""
    place = (sure * bins).long().clamp(0, bins - 1)
    gaps = [
        (sure[mine].mean() - right[mine].float().mean()).abs() * mine.sum()
        for mine in (place == number for number in range(bins))
        if mine.any()
    ]
    return float(torch.stack(gaps).sum() / len(sure)) if gaps else 0.0
