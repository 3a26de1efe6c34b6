"""Soft routing: every expert is read, weighed by the router."""

from __future__ import annotations

from typing import Literal

import torch

from astrea.fusion.routing.policy import Scored
from astrea.fusion.routing.route import Route, Scores


class Soft(Scored):
    """``w = softmax(z)`` over the experts that are present: the dense mixture that sparse ones are compared with
    (arXiv 1701.06538, section 2.1)."""

    policy: Literal["soft"] = "soft"

    def route(self, scores: Scores, generator: torch.Generator | None) -> Route:
        return Route(scores.probability(), scores.present.expand_as(scores.logits))
