"""What a routing policy is: its settings, and the methods that the strategy ``routed`` calls.

Letters: B pictures, S questions per picture, E experts, U slices of experts (= E unless a policy cuts them), N
questions of a step, T all experts' tokens, D language-model width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.common.errors import AstreaError
from astrea.fusion.protocol import Layout
from astrea.fusion.routing.route import Route, Scores, load_figures
from astrea.fusion.routing.router import Even, Router
from astrea.fusion.training import Output, TrainingStep


class Reader(nn.Module):
    """What changes the tokens once experts are chosen, where a policy has such a part."""

    @abstractmethod
    def forward(self, tokens_BTD: Tensor, matrix: ExpertMatrix, route: Route) -> tuple[Tensor, Tensor, Tensor | None]:
        """New tokens (B, T, D), which of them are read (B, T), and a loss of its own or None."""


class Policy(BaseModel):
    """A policy's settings are its fields; a key that it does not have is an error. `route` is all that it must have."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    policy: str

    @property
    def parts(self) -> int:
        """Slices that each expert's tokens are cut into and that are routed one by one."""
        return 1

    @property
    def per_question(self) -> bool:
        """Whether the visual tokens depend on the question, see `FusionStrategy.per_question`."""
        return False

    def scorer(self, layout: Layout) -> nn.Module:
        """The module that gives logits (B, S, U) for questions (B, S, D), the matrix of slices, a generator or None.

        Raises:
            AstreaError: the policy does not fit these experts.
        """
        return Even()

    def reader(self, layout: Layout) -> Reader | None:
        """The module that changes the tokens; None where they are read as they are."""
        return None

    def route(self, scores: Scores, generator: torch.Generator | None) -> Route:
        """Decide: a pure function of scores, settings and generator. None means evaluation."""
        raise NotImplementedError

    def losses(self, step: TrainingStep, output: Output, names: tuple[str, ...]) -> dict[str, Tensor]:
        """Losses by name that need more than scores, such as another pass; see `FusionStrategy.losses`. ``names``: the
        experts'."""
        return {}

    def figures(self, shares_NE: Tensor) -> dict[str, float]:
        """How the load of N questions is spread, by the policy's own measure."""
        return load_figures(shares_NE)


class Scored(Policy):
    """A policy whose logits come from the common `Router`."""

    hidden: PositiveInt = Field(64, description="width of the router's network")
    jitter: float = Field(
        0.01, ge=0, lt=1, description="in training, the router's inputs are multiplied by 1 - jitter .. 1 + jitter"
    )

    def scorer(self, layout: Layout) -> nn.Module:
        return Router(layout.width, len(layout.names) * self.parts, self.hidden, self.jitter)


class Sparse(Policy):
    """A policy that reads some experts only."""

    alone: bool = Field(
        False,
        description="other experts' tokens are not even valid, so that visual tokens cannot read them either; costs a "
        "row per question",
    )

    @property
    def per_question(self) -> bool:
        return self.alone


def find_expert(names: Sequence[str], name: str | None, what: str) -> int:
    """The index of an expert with a part of its own: the one named, or else the captioning expert where there is one
    (like CLIP it learned from sentences and looks at the whole picture), or else the first.

    Raises:
        AstreaError: there is no expert of that name. ``what`` says what it was to be.
    """
    if name is None:
        return list(names).index("captioning") if "captioning" in names else 0
    if name not in names:
        raise AstreaError(f"{what} {name!r} is no expert here", f"choose one of {', '.join(names)}")
    return list(names).index(name)


def is_expert(scores: Scores, name: str | None, what: str) -> Tensor:
    """Which of the experts are the one that `find_expert` finds, or slices of it: (E,) bool."""
    found = scores.names[find_expert(scores.names, name, what)]
    return torch.tensor([each == found for each in scores.names], device=scores.logits.device)


def check_choice(k: int, among: int, what: str) -> None:
    """Raises AstreaError: ``k`` are to be chosen among fewer; ``what`` says of what."""
    if k > among:
        raise AstreaError(f"{k} of {among} {what} are to be read", f"choose at most {among}")
