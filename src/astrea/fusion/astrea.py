"""Astrea's own fusion: mixer and stochastic residual on the tokens; gate weight and word match as attention bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.calibration import Calibration
from astrea.fusion.gate import Allocator, Gate
from astrea.fusion.item_calibration import ItemCalibration
from astrea.fusion.item_gate import ItemGate
from astrea.fusion.mixer import Mixer, StochasticResidual
from astrea.fusion.protocol import FusionStrategy, Layout, VisualTokens, equal_shares
from astrea.fusion.pruning import draw_thresholds, token_score
from astrea.fusion.reliability import ReliabilityHead, select_reliable
from astrea.fusion.reliability_loss import reliability_loss
from astrea.fusion.training import Output, Regularisation, TrainingStep
from astrea.language.attention import word_match_start
from astrea.language.defaults import WORD_MATCH

UNREAD = -1e4
"""Added to the attention score of tokens that are not read."""

ADDED_MATCH = 0.25
"""Strength of the word match of an expert that was added by alignment alone, relative to the others. At full strength
it could add 16 to a token's score, and the expert's small gate weight would have no effect."""


class AstreaFusion(FusionStrategy):
    """Every expert token is kept in native form. ``log(w_e E)`` is added to each question's attention to expert e, and
    ``gamma_h cos(word, token)`` to each word's attention to each token, at first in all heads but every fourth.

    The word match uses what pre-alignment provides: tokens lie in the space of the language model's word embeddings, so
    a word of the question ("cat") finds the matching token by cosine before the language model has learned to attend.

    An expert that the others contradict is treated as absent for this picture (`ReliabilityHead`). Tokens whose score
    for a question is below ``threshold`` are not read for that question (`astrea.fusion.pruning`).

    Experts in ``joined`` were added by alignment alone (`astrea.training.add_expert`), after everything here was
    trained. The reliability head does not judge them. Each of their tokens is weighted by its confidence, and their
    weight counts relative to the mean weight of the trained experts. Their word match is weak, and they are
    cross-only: text attends to them, other visual tokens do not, neither in the mixer nor in the language model.

    With equal weights, no mixer and no word match this is the aligned sequence concat. ``residual_keep`` is the current
    probability p of the stochastic residual: it goes from ``residual_start`` to ``residual_end`` over the fuse stage.
    """

    residual_keep: Tensor
    learning_rates: Mapping[str, float] = {"trust.": 20.0, "allocator.": 10.0}
    """Both start from nothing and have little time."""
    weighted_losses = ("contribution", "reliability")

    def __init__(
        self,
        layout: Layout,
        *,
        heads: int = 4,
        tau: float = 1.0,
        mixer: bool = True,
        residual: bool = False,
        residual_start: float = 1.0,
        residual_end: float = 0.85,
        allocator: bool = True,
        use_question: bool = True,
        use_confidence: bool = False,
        targets: Literal["templates", "items"] = "templates",
        trust: bool = True,
        reliability_kinds: Sequence[str] = (),
        word_match: float = WORD_MATCH,
        threshold: float = 0.0,
        thrifty: float = 0.0,
        joined: Sequence[str] = (),
    ) -> None:
        super().__init__()
        width, experts = layout.width, len(layout.names)
        self.num_tokens = layout.tokens
        self.word_match = nn.Parameter(word_match_start(layout.heads, word_match)) if word_match else None
        self.mixer = Mixer(width, heads) if mixer else None
        self.residual = StochasticResidual(experts) if mixer and residual else None
        self.schedule = (residual_start, residual_end)
        self.targets = targets
        # Plain booleans, not a buffer: the configuration states which experts were added.
        self.joined = [name in joined for name in layout.names]
        self.allocator: Gate | None = None
        if allocator and targets == "items":
            self.allocator = ItemGate(width, experts, joined=self.joined)
        elif allocator:
            self.allocator = Allocator(
                width, experts, tau=tau, use_question=use_question, use_confidence=use_confidence
            )
        self.kinds = tuple(reliability_kinds)
        self.trust = ReliabilityHead(width, experts) if trust else None
        self.threshold, self.thrifty = threshold, thrifty
        self.register_buffer("residual_keep", torch.tensor(1.0))
        self.calibration = self._calibration(0)

    def forward(
        self, matrix: ExpertMatrix, question_BSD: Tensor, generator: torch.Generator | None = None
    ) -> VisualTokens:
        trained_E = self.trained(matrix)
        # The reliability head is trained by its own loss, not by the answers.
        reliable_BE = None if self.trust is None else select_reliable(self.trust, matrix, trained_E)
        if reliable_BE is not None:
            matrix = matrix.with_presence(reliable_BE)
        tokens = matrix.tokens
        if self.mixer is not None:
            mixed = self.mixer(matrix, trained_E if any(self.joined) else None)
            if self.residual is None:
                tokens = tokens + mixed
            else:
                tokens = self.residual(mixed, matrix, float(self.residual_keep), generator)
        words = None if self.word_match is None else F.normalize(matrix.tokens, dim=-1)
        cross_only = ~trained_E[matrix.expert] if any(self.joined) else None
        if words is not None and cross_only is not None:
            words = torch.where(cross_only.unsqueeze(-1), ADDED_MATCH * words, words)
        if self.allocator is None:
            shares = equal_shares(matrix.present, question_BSD.shape[1])
            return VisualTokens(tokens, matrix.valid, shares, None, words, reliable_BE, cross_only=cross_only)
        shares = self.allocator.weigh(question_BSD, matrix)
        relative_BSE = relative_shares(shares.detach(), matrix.present, trained_E)
        bias_BSM = torch.log(relative_BSE.clamp_min(1e-6))[:, :, matrix.expert]
        if cross_only is not None:
            bias_BSM = bias_BSM + (cross_only * matrix.confidence.clamp_min(1e-4).log()).unsqueeze(1)
        valid = matrix.valid
        learning = generator if self.thrifty else None
        if learning is not None or self.threshold:
            score_BSM = token_score(bias_BSM, shares.sum(-1), matrix.confidence, valid, words, question_BSD)
            least = self.threshold if learning is None else draw_thresholds(bias_BSM, self.thrifty, learning)
            read_BSM = score_BSM >= least
            bias_BSM = bias_BSM.masked_fill(~read_BSM, UNREAD)
            if learning is None:
                # Tokens that no question of this row reads are left out of the sequence.
                valid = valid & read_BSM.any(1)
        return VisualTokens(tokens, valid, shares, bias_BSM, words, reliable_BE, cross_only=cross_only)

    def start_training(self, groups: int) -> None:
        self.calibration = self._calibration(groups)

    def _calibration(self, groups: int) -> Calibration:
        learner = ItemCalibration if self.targets == "items" else Calibration
        return learner(groups, len(self.joined))

    def training_state(self) -> dict[str, Tensor]:
        return self.calibration.contributions.state_dict()

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        self.calibration.contributions.load_state_dict(state)

    def progress(self, done: float) -> None:
        if self.residual is not None:
            start, end = self.schedule
            self.residual_keep.fill_(start + (end - start) * done)

    def before_forward(self, step: TrainingStep) -> dict[str, Tensor]:
        found = {}
        if self.trust is not None and step.trains_fusion and step.weights.get("reliability"):
            found["reliability"] = reliability_loss(self.trust, step, self.kinds)
        if self.allocator is not None:
            self.calibration.measure(step)
        return found

    def losses(self, step: TrainingStep, output: Output) -> dict[str, Tensor]:
        if self.allocator is None:
            return {}
        bias = self.allocator.load_bias
        return self.calibration.loss(step, step.per_row(output.shares, bias), bias)

    def after_step(self, settings: Regularisation) -> None:
        if self.allocator is not None:
            self.calibration.after_step(self.allocator, settings.load_rate)

    def trained(self, matrix: ExpertMatrix) -> Tensor:
        """Which experts (E,) the fusion was trained with; the others were added later."""
        return ~torch.tensor(self.joined, device=matrix.present.device)


def relative_shares(shares_BSE: Tensor, present_BE: Tensor, trained_E: Tensor) -> Tensor:
    """Weights divided by the mean weight of the trained experts (B, S, E). Equal weights give 1 everywhere, so visual
    attention as a whole is neither raised nor lowered, and an expert added later changes nothing for the others.

    Where no trained expert is present, the mean is taken over the experts that are.
    """
    here_BE = present_BE & trained_E
    counted_BE = torch.where(here_BE.any(-1, keepdim=True), here_BE, present_BE)
    total_BS1 = (shares_BSE * counted_BE.unsqueeze(1)).sum(-1, keepdim=True)
    return shares_BSE * counted_BE.sum(-1).view(-1, 1, 1) / total_BS1.clamp_min(1e-6)
