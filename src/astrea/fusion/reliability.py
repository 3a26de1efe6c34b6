"""Which experts are reliable for this picture, judged by their agreement with the others.

Letters: B pictures, E experts, T all experts' tokens, D language-model width, P width of the projection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix, distances

NEAR = 0.1
"""Distance, in widths of the picture, beyond which the separation of two tokens is 1."""

AGREEMENTS = 8
"""Figures for each pair of experts; see `ReliabilityHead.agreements`."""


class ReliabilityHead(nn.Module):
    """Logits that an expert is reliable, from its agreement with every other one, its confidence and its mean token.

    Pre-alignment maps all experts into one space of words, so their outputs can be compared: for each token of e the
    cosine to the nearest token of f, in a learned projection; and the same less the distance between the two tokens'
    places. An expert that is confidently wrong (another picture's boxes, a stuck sensor) agrees with none of the
    others. This head is our own addition to the paper's allocator. It is trained on experts whose features are
    deliberately corrupted (`astrea.fusion.reliability_loss`).

    Agreements are standardised by the statistics that `observe` collects: a reliable and a corrupted expert differ by a
    few hundredths of a cosine, and without standardisation nothing was learned in hundreds of steps.
    """

    usual: Tensor
    spread: Tensor
    observed: Tensor

    def __init__(self, width: int, experts: int, *, inner: int = 64, hidden: int = 32, start: float = 1.0) -> None:
        super().__init__()
        # Orthogonal: tokens that are close in the space of words are close in the projection from the start.
        self.look = nn.Linear(width, inner)
        nn.init.orthogonal_(self.look.weight)
        nn.init.zeros_(self.look.bias)
        self.norm = nn.LayerNorm(width)
        # Weights per expert, because agreement differs in kind: tags match words, boxes match regions.
        self.from_echo = nn.Parameter(torch.randn(experts, (AGREEMENTS + 1) * experts, hidden) * 0.1)
        self.from_confidence = nn.Linear(1, hidden, bias=False)
        self.from_expert = nn.Linear(width, hidden, bias=False)
        self.own = nn.Parameter(torch.zeros(experts, hidden))
        self.mid = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1)
        nn.init.normal_(self.score.weight, std=0.2)
        nn.init.constant_(self.score.bias, start)
        self.register_buffer("usual", torch.zeros(experts, AGREEMENTS * experts))
        self.register_buffer("spread", torch.ones(experts, AGREEMENTS * experts))
        self.register_buffer("observed", torch.tensor(0.0))

    def forward(self, matrix: ExpertMatrix, agreements: Tensor | None = None) -> Tensor:
        """Logits (B, E) that each expert is reliable; undefined for absent experts.

        Args:
            agreements: of this matrix, where they are known: they take most of the time.
        """
        known = self.agreements(matrix) if agreements is None else agreements
        agreements = (known - self.usual) / self.spread
        here = matrix.present.unsqueeze(1).expand(-1, matrix.experts, -1).to(agreements.dtype)
        token_BED, sure_BE = matrix.summary()
        hidden = torch.einsum("bef,efh->beh", torch.cat([agreements, here], -1), self.from_echo) + self.own
        hidden = hidden + self.from_confidence(sure_BE.unsqueeze(-1)) + self.from_expert(self.norm(token_BED))
        found: Tensor = self.score(torch.tanh(self.mid(torch.tanh(hidden)))).squeeze(-1)
        return found

    def agreements(self, matrix: ExpertMatrix) -> Tensor:
        """(B, E, 8 E): for each pair of experts the mean and the worst agreement, in both directions, with and without
        regard to places."""
        unit_BTP = F.normalize(self.look(matrix.tokens), dim=-1)
        cosine_BTT = unit_BTP @ unit_BTP.transpose(1, 2)
        scores = (cosine_BTT, cosine_BTT - separation(matrix.places))
        members = tokens_of(matrix)
        found = [part for score_BTT in scores for part in agreement(score_BTT, matrix, members)]
        return torch.cat([way for part_BEE in found for way in (part_BEE, part_BEE.transpose(1, 2))], -1)

    @torch.no_grad()
    def observe(self, agreements: Tensor, gather: Callable[[Tensor], Tensor] = lambda rows: rows) -> None:
        """Update the statistics of agreements: the plain mean of the first batches, then a moving average.

        Args:
            gather: collects the rows of all processes, where several share the pictures.
        """
        self.observed += 1
        rate = max(0.02, 1 / float(self.observed))
        found = gather(agreements)
        self.usual.lerp_(found.mean(0), rate)
        self.spread.lerp_(found.std(0, unbiased=False), rate).clamp_min_(0.01)


@torch.no_grad()
def select_reliable(head: Callable[[ExpertMatrix], Tensor], matrix: ExpertMatrix, judged_E: Tensor) -> Tensor:
    """Which experts are reliable (B, E): all but those with a logit of at most 0.

    The expert with the lowest logit is dropped first, and the others are judged again without it: a corrupted expert
    lowers the agreement of reliable ones, so dropping all at once would drop some of those too. The last judged expert
    is always kept. One pass of the head where none is dropped, at most E - 1 otherwise.

    Args:
        head: logits (B, E) of a matrix, such as a `ReliabilityHead`.
        judged_E: the experts that the head was trained with; the others count as reliable.
    """
    stays_BE = torch.ones_like(matrix.present)
    for _ in range(matrix.experts - 1):
        heard = matrix.with_presence(stays_BE)
        here_BE = heard.present & judged_E
        lowest_B1, who_B1 = head(heard).masked_fill(~here_BE, torch.inf).min(-1, keepdim=True)
        goes_B1 = (lowest_B1 <= 0) & (here_BE.sum(-1, keepdim=True) > 1)
        # A compiled or exported model cannot branch on values; further passes then change nothing.
        if not torch.compiler.is_compiling() and not goes_B1.any():
            break
        stays_BE = stays_BE.scatter(1, who_B1, stays_BE.gather(1, who_B1) & ~goes_B1)
    return stays_BE


def separation(places_BT2: Tensor) -> Tensor:
    """Distance of the places of tokens (B, T, T): 0 at one place, 1 from `NEAR` on; 0 where either has no place."""
    squared_BTT, known_BTT = distances(places_BT2)
    return (squared_BTT / NEAR**2).clamp_max(1.0) * known_BTT


def tokens_of(matrix: ExpertMatrix) -> list[list[int]] | None:
    """The tokens of each expert; None in a compiled or exported model, which cannot read values. This synchronises
    with the GPU once; indexing by boolean masks would do so for every mask."""
    if torch.compiler.is_compiling():
        return None
    owner = matrix.expert.tolist()
    return [[token for token, whose in enumerate(owner) if whose == e] for e in range(matrix.experts)]


def agreement(score_BTT: Tensor, matrix: ExpertMatrix, members: Sequence[list[int]] | None) -> tuple[Tensor, Tensor]:
    """How well the tokens of e agree with those of f: for each token of e, the highest score with a token of f.

    Args:
        members: see `tokens_of`.

    Returns:
        (B, E, E) each, first e then f: the confidence-weighted mean over e's tokens, and the worst of them. Zero where
        either has no valid token.
    """
    score_BTT = score_BTT.masked_fill(~matrix.valid.unsqueeze(1), -2.0)
    member_TE = F.one_hot(matrix.expert, matrix.experts).bool()
    if members is None:
        of_each = [score_BTT.masked_fill(~member_TE[:, e], -torch.inf).amax(-1) for e in range(matrix.experts)]
    else:
        of_each = [score_BTT[:, :, own].amax(-1) for own in members]
    nearest_BTE = torch.stack(of_each, -1)
    weight_BTE = (matrix.confidence * matrix.valid).unsqueeze(-1) * member_TE
    total_BE = weight_BTE.sum(1)
    mean_BEE = torch.einsum("bte,btf->bef", weight_BTE, nearest_BTE) / total_BE.clamp_min(1e-6).unsqueeze(-1)
    silent_BTE = ~(matrix.valid.unsqueeze(-1) & member_TE)
    worst_BEE = torch.stack(
        [nearest_BTE.masked_fill(silent_BTE[:, :, e, None], 1.0).amin(1) for e in range(matrix.experts)], 1
    )
    speak_BEE = (total_BE.unsqueeze(1) > 0) & (total_BE.unsqueeze(2) > 0)
    return mean_BEE * speak_BEE, worst_BEE * speak_BEE
