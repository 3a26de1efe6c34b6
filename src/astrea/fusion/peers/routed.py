"""Routing: scores of the experts, and a policy that decides which of them a question reads.

Letters: B pictures, S questions, E experts, U slices of experts, T all experts' tokens, D language-model width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import BaseModel, create_model
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.protocol import FusionStrategy, Layout, VisualTokens
from astrea.fusion.routing.policies import POLICIES
from astrea.fusion.routing.policy import Policy
from astrea.fusion.routing.route import UNREAD, Route, Scores
from astrea.fusion.training import Output, TrainingStep

DEFAULT = "soft"


class Routed(FusionStrategy):
    """Vision experts as a mixture of experts; ``policy`` names the way (see `astrea.fusion.routing`), and each has
    options of its own.

    In a mixture of experts the output of a chosen expert is multiplied by its weight, which is how a gradient reaches
    the router. The experts here are read by attention, so ``log(w_e n)`` is added to the scores of a chosen expert's
    tokens, n being how many are chosen: equal weights leave attention as it is. A large negative number is added to all
    others'.

    The bias keeps the *text* from experts that are not chosen; visual tokens of one picture still read one another
    inside the language model, since many questions share them. The option ``alone`` of policies that choose closes this
    way too.
    """

    def __init__(self, layout: Layout, *, policy: str = DEFAULT, **options: Any) -> None:
        super().__init__()
        self.num_tokens = layout.tokens
        self.policy: Policy = POLICIES[policy].model_validate({"policy": policy, **options})
        self.per_question = self.policy.per_question
        self.names = layout.names
        self.router = self.policy.scorer(layout)
        self.slot = nn.Parameter(0.02 * torch.randn(layout.tokens, layout.width))
        self.reader = self.policy.reader(layout)
        self.slices = slice_of_token(layout.counts, self.policy.parts)

    @classmethod
    def options_model(cls, given: Mapping[str, Any]) -> type[BaseModel]:
        """The settings of the policy that is named."""
        named = given.get("policy", DEFAULT)
        if isinstance(named, str) and named in POLICIES:
            return POLICIES[named]
        known: Any = Literal[tuple(POLICIES)]
        return create_model("RoutedOptions", policy=(known, DEFAULT))

    def forward(
        self, matrix: ExpertMatrix, question_BSD: Tensor, generator: torch.Generator | None = None
    ) -> VisualTokens:
        parts = self.policy.parts
        cut = matrix if parts == 1 else sliced(matrix, torch.tensor(self.slices, device=matrix.expert.device), parts)
        logits = self.router(question_BSD, cut, generator)
        # A row with fewer questions than others is filled up with zeros, which ask nothing.
        asked_BS = question_BSD.abs().sum(-1) > 0
        names = tuple(name for name in self.names for _ in range(parts))
        route = self.policy.route(Scores(logits, cut.present.unsqueeze(1), asked_BS, names), generator)
        tokens_BTD, valid_BT, loss = matrix.tokens + self.slot, matrix.valid, route.loss
        if self.reader is not None:
            tokens_BTD, valid_BT, own = self.reader(tokens_BTD, matrix, route)
            loss = own if loss is None else loss if own is None else loss + own
        read_BST = route.chosen[:, :, cut.expert]
        bias_BST = torch.where(read_BST, log_weights(route)[:, :, cut.expert], UNREAD)
        return VisualTokens(
            tokens_BTD,
            valid_BT & read_BST[:, 0] if self.per_question else valid_BT,
            expert_shares(route.weight, parts),
            bias_BST,
            auxiliary=None if generator is None else loss,
            router_logits=logits,
        )

    def losses(self, step: TrainingStep, output: Output) -> dict[str, Tensor]:
        return super().losses(step, output) | self.policy.losses(step, output, self.names)

    def figures(self, step: TrainingStep, output: Output) -> dict[str, float]:
        shares_RSE = step.per_row(output.shares, self.slot.new_zeros(len(self.names)))
        asked_RS = (step.groups[step.local_rows] >= 0).to(shares_RSE.device)
        part = int(asked_RS.sum()) / max(1, int((step.groups >= 0).sum()))
        # A process without questions names the same figures as the others: they are added up by their place.
        shares_NE = shares_RSE[asked_RS].detach() if part else self.slot.new_zeros(1, len(self.names))
        return {name: value * part for name, value in self.policy.figures(shares_NE).items()}


def log_weights(route: Route) -> Tensor:
    """What is added to attention: ``log(w_e n)``, n being how many are chosen (B, S, U)."""
    count_BS1 = route.chosen.sum(-1, keepdim=True).clamp_min(1)
    return (route.weight.clamp_min(1e-9) * count_BS1).log()


def expert_shares(weight_BSU: Tensor, parts: int) -> Tensor:
    """Weights as shares (B, S, E) that sum to 1; zeros where nobody is chosen."""
    weight_BSE = weight_BSU if parts == 1 else weight_BSU.unflatten(-1, (-1, parts)).sum(-1)
    return weight_BSE / weight_BSE.sum(-1, keepdim=True).clamp_min(1e-9)


def slice_of_token(counts: Sequence[int], parts: int) -> list[int]:
    """The slice of every expert token, if each expert's are cut into so many parts as equal as can be, in their order;
    expert e has the slices ``e parts ... e parts + parts - 1``."""
    return [e * parts + t * parts // count for e, count in enumerate(counts) for t in range(count)]


def sliced(matrix: ExpertMatrix, slice_T: Tensor, parts: int) -> ExpertMatrix:
    """The same tokens with slices in the place of experts; a slice without tokens is absent."""
    filled_U = torch.bincount(slice_T, minlength=matrix.experts * parts) > 0
    present_BU = matrix.present.repeat_interleave(parts, 1) & filled_U
    return replace(matrix, present=present_BU, expert=slice_T)
