"""What a language model has forgotten by training: plain facts, asked without a picture before and after.

Letters: Q questions, L tokens, V words.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from astrea.data.packing import Packer, Turn, answer_losses
from astrea.evaluation.plain_answers import plain_answers
from astrea.language.facts import FACTS, is_recalled
from astrea.model.modeling import AstreaForConditionalGeneration

KEPT = "language.json"
"""The file in a run's folder that says what its pretrained language model still says of plain sentences and facts."""

LONGEST = 24
"""Tokens of an answer that are waited for."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """How a model answers the facts. losses: (Q,) nats per token of the right answers, end mark included. answers: (Q)
    its own, as many tokens of them as `LONGEST`."""

    losses: tuple[float, ...]
    answers: tuple[str, ...]

    @property
    def loss(self) -> float:
        """The mean of the losses: every question counts alike."""
        return sum(self.losses) / len(self.losses)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@torch.no_grad()
def recall(model: AstreaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> Recalled:
    """Ask a model the facts, without a picture. It is left in the mode that it was in; no random number is drawn."""
    answers = plain_answers(model, tokenizer, [fact.question for fact in FACTS], longest=LONGEST)
    packer = Packer(tokenizer, model.num_visual_tokens)
    packed = packer.pack([[Turn(fact.question, fact.answer)] for fact in FACTS], pictures=False)
    inputs = {name: value.to(model.device) for name, value in packed.model_inputs().items()}
    was_training = model.training
    model.eval()
    logits_QLV = model(**inputs, use_cache=False).logits
    model.train(was_training)
    losses_QS = answer_losses(logits_QLV, inputs["labels"], inputs["segments"], 1)
    return Recalled(tuple(losses_QS[:, 0].tolist()), tuple(answers))


def compare(before: Recalled, after: Recalled) -> dict[str, Any]:
    """What ``results.json`` holds as ``forgetting``: losses in nats per token, how many answers are right and the same,
    and each question with both answers."""
    columns = zip(FACTS, before.answers, after.answers, before.losses, after.losses, strict=True)
    rows = [
        {
            "question": fact.question,
            "right": fact.word,
            "before": first,
            "after": last,
            "loss_before": loss_before,
            "loss_after": loss_after,
        }
        for fact, first, last, loss_before, loss_after in columns
    ]
    return {
        "questions": len(FACTS),
        "loss_before": before.loss,
        "loss_after": after.loss,
        "right_before": sum(is_recalled(*pair) for pair in zip(FACTS, before.answers, strict=True)),
        "right_after": sum(is_recalled(*pair) for pair in zip(FACTS, after.answers, strict=True)),
        "same": sum(first == last for first, last in zip(before.answers, after.answers, strict=True)),
        "answers": rows,
    }
