"""Astrea's own fusion: mixer and stochastic residual on the tokens; share and word match as attention bias."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.gate import Allocator
from astrea.fusion.mixer import Mixer, StochasticResidual
from astrea.fusion.protocol import FusionStrategy, Layout, VisualTokens, equal_shares
from astrea.fusion.pruning import draw_thresholds, worth
from astrea.fusion.reliability import Trust, believed
from astrea.language.attention import WORD_MATCH, word_match_start

UNREAD = -1e4
"""Added to the attention score of tokens that are not read."""

ADDED_MATCH = 0.25
"""Strength of the word match of an expert that has joined by alignment alone, over that of the others: at full strength
it could add 16 to a token's score, and the expert's small share would mean nothing."""


class AstreaFusion(FusionStrategy):
    """Every expert token is read, in native form; ``log(w_e E)`` is added to each question's attention to expert e, and
    ``gamma_h cos(word, token)`` to each word's attention to each token, in all heads but every fourth at first.

    The second is what word-level pre-alignment is for: tokens live in the space of the language model's own words, so a
    word of the question ("cat") finds the token that says it by cosine, before the language model has learned to look.

    An expert that the others do not echo is not believed (`Trust`): for this picture it is as absent as a missing one.
    Tokens that promise a question less than ``threshold`` are not read for it (`astrea.fusion.pruning`).

    Experts that have ``joined`` by alignment alone (`astrea.training.add_expert`) are strangers to all that was trained
    here: nobody has learned to judge them, so they are believed, and of their share each token counts as far as it is
    sure; what an equal share is goes by the others; their word match is weak; and no other token reads them, neither in
    the mixer nor in the language model: only words do.

    With equal shares, no mixer and no word match this is the aligned sequence concat. ``residual_keep`` is the current
    probability p of the stochastic residual; the fuse stage moves it.
    """

    residual_keep: Tensor

    def __init__(
        self,
        layout: Layout,
        *,
        heads: int = 4,
        tau: float = 1.0,
        mixer: bool = True,
        residual: bool = False,
        allocator: bool = True,
        use_question: bool = True,
        use_confidence: bool = False,
        trust: bool = True,
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
        self.allocator = (
            Allocator(width, experts, tau=tau, use_question=use_question, use_confidence=use_confidence)
            if allocator
            else None
        )
        self.trust = Trust(width, experts) if trust else None
        self.threshold, self.thrifty = threshold, thrifty
        # Plain truth values, not a buffer: it is the configuration that says who has joined.
        self.joined = [name in joined for name in layout.names]
        self.register_buffer("residual_keep", torch.tensor(1.0))

    def forward(
        self, matrix: ExpertMatrix, question_BSD: Tensor, generator: torch.Generator | None = None
    ) -> VisualTokens:
        trained_E = self.trained(matrix)
        # Trust learns from pictures of its own, not from answers.
        honest_BE = None if self.trust is None else believed(self.trust, matrix, trained_E)
        if honest_BE is not None:
            matrix = matrix.with_presence(honest_BE)
        tokens = matrix.tokens
        if self.mixer is not None:
            mixed = self.mixer(matrix, trained_E if any(self.joined) else None)
            if self.residual is None:
                tokens = tokens + mixed
            else:
                tokens = self.residual(mixed, matrix, float(self.residual_keep), generator)
        words = None if self.word_match is None else F.normalize(matrix.tokens, dim=-1)
        apart = ~trained_E[matrix.expert] if any(self.joined) else None
        if words is not None and apart is not None:
            words = torch.where(apart.unsqueeze(-1), ADDED_MATCH * words, words)
        if self.allocator is None:
            shares = equal_shares(matrix.present, question_BSD.shape[1])
            return VisualTokens(tokens, matrix.valid, shares, None, words, honest_BE, apart=apart)
        shares = self.allocator(question_BSD, *matrix.summary(), matrix.present)
        relative_BSE = relative_shares(shares.detach(), matrix.present, trained_E)
        bias_BSM = torch.log(relative_BSE.clamp_min(1e-6))[:, :, matrix.expert]
        if apart is not None:
            bias_BSM = bias_BSM + (apart * matrix.confidence.clamp_min(1e-4).log()).unsqueeze(1)
        valid = matrix.valid
        learning = generator if self.thrifty else None
        if learning is not None or self.threshold:
            promised_BSM = worth(bias_BSM, shares.sum(-1), matrix.confidence, valid, words, question_BSD)
            least = self.threshold if learning is None else draw_thresholds(bias_BSM, self.thrifty, learning)
            read_BSM = promised_BSM >= least
            bias_BSM = bias_BSM.masked_fill(~read_BSM, UNREAD)
            if learning is None:
                # What no question of this row reads need not be in the sequence at all.
                valid = valid & read_BSM.any(1)
        return VisualTokens(tokens, valid, shares, bias_BSM, words, honest_BE, apart=apart)

    def trained(self, matrix: ExpertMatrix) -> Tensor:
        """Which experts (E,) all of this was trained with; the others have joined later."""
        return ~torch.tensor(self.joined, device=matrix.present.device)


def relative_shares(shares_BSE: Tensor, present_BE: Tensor, trained_E: Tensor) -> Tensor:
    """Shares over the mean share of the trained experts (B, S, E): with equal ones all are 1, so that visual attention
    as a whole is neither raised nor lowered, and whoever joins later changes nothing for the others.

    Where no trained expert is present, over the mean of those that are.
    """
    here_BE = present_BE & trained_E
    counted_BE = torch.where(here_BE.any(-1, keepdim=True), here_BE, present_BE)
    total_BS1 = (shares_BSE * counted_BE.unsqueeze(1)).sum(-1, keepdim=True)
    return shares_BSE * counted_BE.sum(-1).view(-1, 1, 1) / total_BS1.clamp_min(1e-6)
