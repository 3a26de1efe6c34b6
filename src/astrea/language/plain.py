"""Whether a pretrained language model still says what it said: plain sentences without a picture, before and after.

Everything that Astrea puts around a language model (tokens, low-rank adapters, masks, positions) is to change nothing
as long as there is no picture and nothing has learned. What training changes is measured with the same sentences: how
much of what the language model knew it still knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from astrea.common.errors import AstreaError

SENTENCES = (
    "The capital of France is Paris.",
    "Water freezes at zero degrees and boils at one hundred.",
    "A week has seven days, and a year has twelve months.",
    "The sun rises in the east and sets in the west.",
    "Two plus two is four, and three times three is nine.",
    "She opened the door, looked outside and said that it was raining.",
    "The opposite of hot is cold, and the opposite of up is down.",
    "Birds have wings, fish have fins, and dogs have four legs.",
    "He went to the shop to buy bread, milk and some apples.",
    "London is in England, Rome is in Italy, and Tokyo is in Japan.",
    "Once upon a time there was a king who had three daughters.",
    "If it is Monday today, then tomorrow will be Tuesday.",
)
ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-3}
"""How far a probability may move by rounding alone, by type of the weights; more for half precision."""
ROUNDING_OF_HALVES = 3e-2

Ask = Callable[[Tensor, Tensor], Tensor]
"""Token ids and mask (B, L) -> logits (B, L, V)."""


@dataclass(frozen=True, slots=True)
class ReferenceOutputs:
    """What a language model says of the sentences, token by token (P of them in all).

    ids, mask: (B, L), padded on the right. words: how many tokens its vocabulary had. best: (P,) the likeliest next
    tokens. certain: (P,) their probabilities. surprise: nats per token, on average.
    """

    ids: Tensor
    mask: Tensor
    words: int
    best: Tensor
    certain: Tensor
    surprise: float


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of what a language model said it still says.

    sentences, tokens: how many were compared. same: share of tokens behind which the same next one is likeliest.
    moved: the most by which the probability of such a token has changed. surprise_before, surprise_after: nats per
    token of the sentences. equal: nothing changed but for rounding.
    """

    sentences: int
    tokens: int
    same: float
    moved: float
    surprise_before: float
    surprise_after: float
    equal: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def sentence(self) -> str:
        """For a person."""
        what = f"{self.sentences} plain sentences without a picture"
        if self.equal:
            return f"the language model reads {what} as it did before"
        return (
            f"the language model reads {what} differently: the likeliest next token is the same for {self.same:.1%} of "
            f"{self.tokens}, its probability moves by up to {self.moved:.2g}, loss {self.surprise_before:.3f} -> "
            f"{self.surprise_after:.3f}"
        )


@torch.no_grad()
def reference_outputs(ask: Ask, tokenizer: PreTrainedTokenizerBase, words: int) -> ReferenceOutputs:
    """What a language model says of the sentences.

    Args:
        ask: the language model, in evaluation mode, on the processor.
        words: tokens of its vocabulary that count; those behind them are not its own.

    Raises:
        AstreaError: the tokenizer makes no tokens of the sentences.
    """
    rows = [row for row in (tokenizer(sentence).input_ids for sentence in SENTENCES) if len(row) > 1]
    if not rows:
        raise AstreaError("the checkpoint's tokenizer makes no tokens of plain English", "choose another checkpoint")
    longest = max(map(len, rows))
    # Padding on the right, by a token that is there: nothing before it can read it, whoever masks or does not.
    ids = torch.tensor([row + [row[-1]] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    log_PV, surprise = _read(ask, ids, mask, words)
    certain, best = log_PV.max(1)
    return ReferenceOutputs(ids, mask, words, best, certain.exp(), surprise)


@torch.no_grad()
def compare(before: ReferenceOutputs, ask: Ask, dtype: torch.dtype) -> Retention:
    """What has changed since.

    Args:
        ask: as in `reference_outputs`, of the model as it is now. dtype: of its weights.
    """
    log_PV, surprise = _read(ask, before.ids, before.mask, before.words)
    same = float((log_PV.argmax(1) == before.best).float().mean())
    moved = float((log_PV.gather(1, before.best.unsqueeze(1))[:, 0].exp() - before.certain).abs().max())
    equal = moved <= ROUNDING.get(dtype, ROUNDING_OF_HALVES)
    return Retention(len(before.ids), len(before.best), same, moved, before.surprise, surprise, equal)


def _read(ask: Ask, ids: Tensor, mask: Tensor, words: int) -> tuple[Tensor, float]:
    """Log probabilities (P, V) of all next tokens, and the mean surprise by those that come."""
    logits = ask(ids, mask).float().cpu()[:, :-1, :words]
    real = mask[:, 1:].bool()
    log_PV = F.log_softmax(logits[real], -1)
    return log_PV, float(F.nll_loss(log_PV, ids[:, 1:][real]))
