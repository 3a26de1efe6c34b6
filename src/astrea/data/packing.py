"""Several questions about one picture in one row: the picture is read once, every question sees it alone.

Row layout: ``<bos> picture | <user> q1 <assistant> a1 <eos> | <user> q2 ...``, token for token what the chat template
gives for each question by itself. See `astrea.attention` for who sees whom.

Letters: B rows, L length, S questions per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

CAPTION_PROMPT = "describe the picture."
NOTE_PROMPT = "list."


@dataclass(frozen=True, slots=True)
class Turn:
    """One question (or instruction) and its answer; ``weight`` scales the loss of each answer token."""

    question: str
    answer: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Rows for the model's ``forward``; all (B, L)."""

    input_ids: Tensor
    attention_mask: Tensor
    segments: Tensor
    labels: Tensor
    label_weights: Tensor

    def model_inputs(self) -> dict[str, Tensor]:
        """Keyword arguments for `AstreaForConditionalGeneration.forward`."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class Packer:
    """Tokenises turns (remembering what it has seen) and lays them out in rows."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, picture_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.picture_tokens = picture_tokens
        ids: Any = tokenizer.convert_tokens_to_ids
        self.bos, self.eos, self.pad = (
            int(i) for i in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        )
        self.image, self.user, self.assistant = (int(ids(t)) for t in ("<image>", "<user>", "<assistant>"))
        self.seen: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        found = self.seen.get(text)
        if found is None:
            found = self.tokenizer(text, add_special_tokens=False).input_ids
            self.seen[text] = found
        return found

    def pack(self, rows: Sequence[Sequence[Turn]], *, pictures: bool = True) -> PackedBatch:
        """Lay out rows, padded on the right. Without ``pictures`` the prefix is ``<bos>`` alone (a blind row)."""
        prefix = [self.bos] + [self.image] * (self.picture_tokens if pictures else 0)
        columns: list[list[list[Any]]] = []
        for turns in rows:
            ids, segments, labels, weights = list(prefix), [0] * len(prefix), [-100] * len(prefix), [0.0] * len(prefix)
            for number, turn in enumerate(turns, 1):
                asked = [self.user, *self.ids(turn.question), self.assistant]
                told = [*self.ids(turn.answer), self.eos]
                ids += asked + told
                labels += [-100] * len(asked) + told
                weights += [0.0] * len(asked) + [turn.weight] * len(told)
                segments += [number] * (len(asked) + len(told))
            columns.append([ids, segments, labels, weights])
        length = max(len(column[0]) for column in columns)
        fill = (self.pad, -1, -100, 0.0)
        padded = [[part + [fill[i]] * (length - len(part)) for i, part in enumerate(column)] for column in columns]
        ids_BL, segments_BL, labels_BL = (torch.tensor([row[i] for row in padded]) for i in range(3))
        weights_BL = torch.tensor([row[3] for row in padded])
        return PackedBatch(ids_BL, (segments_BL >= 0).long(), segments_BL, labels_BL, weights_BL)


def answers_right(logits_BLV: Tensor, batch: PackedBatch) -> Tensor:
    """Whether every token of each question's answer is the most likely one: (B, S) float, NaN where there is none."""
    guess = logits_BLV[:, :-1].argmax(-1)
    target = batch.labels[:, 1:]
    count = int(batch.segments.max())
    told = target != -100
    right = torch.full((len(guess), count), float("nan"))
    for number in range(1, count + 1):
        mine = told & (batch.segments[:, 1:] == number)
        has = mine.any(1)
        right[has, number - 1] = (~(mine & (guess != target)).any(1))[has].float()
    return right


def answer_losses(logits_BLV: Tensor, labels_BL: Tensor, segments_BL: Tensor, questions: int) -> Tensor:
    """Mean negative log-likelihood per answer token (with its end mark) of every question: (B, S) nats, 0 where a row
    has no such question."""
    told_BL, segment_BL = labels_BL[:, 1:], segments_BL[:, 1:]
    loss_BL = F.cross_entropy(logits_BLV[:, :-1].float().transpose(1, 2), told_BL, reduction="none", ignore_index=-100)
    numbers_S = torch.arange(1, questions + 1)
    member_BLS = (segment_BL.unsqueeze(-1) == numbers_S) & (told_BL != -100).unsqueeze(-1)
    return torch.einsum("bl,bls->bs", loss_BL, member_BLS.float()) / member_BLS.sum(1).clamp_min(1)
