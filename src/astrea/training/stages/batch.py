"""A batch of instruction tuning: packed rows with the pictures that they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.common.seeds import generator_for
from astrea.data.packing import PackedBatch, Packer
from astrea.data.protocol import Reword, Rows, Samples
from astrea.experts.corruption import draw_experts
from astrea.training.context import CaptionBatch, TrainingContext
from astrea.training.plain_chat import chat_rows, with_chat


@dataclass(frozen=True, slots=True)
class InstructBatch(Rows):
    """Packed rows with the pictures that they show; a strategy whose tokens depend on the question gets a row for every
    question.

    Letters: B samples, P pictures, R rows, N pictures as rows show them, S questions per row, E experts.
    samples, captions: B samples and the text that is read of each. present: (P, E). corrupted: (P,) the expert whose
    features are replaced by wrong ones, -1 for none. micro: the micro-step it is for. skipped: (N, E) bool, the experts
    that the questions of a picture's row do without; None = none. pack: makes the rows, of texts that are put through
    something per sample.
    """

    samples: Samples
    captions: CaptionBatch
    present: Tensor
    corrupted: Tensor
    micro: int
    pack: Callable[[Sequence[Reword | None] | None], Rows]
    skipped: Tensor | None = None

    def reworded(self, changes: Sequence[Reword | None]) -> InstructBatch:
        """The same samples with the questions and answers of each put through something; None leaves them."""
        return replace(self, packed=self.pack(changes).packed)

    def present_shown(self, pictures: slice) -> Tensor:
        """Which experts are present in some of the N pictures."""
        present = self.present[self.shown[pictures]]
        return present if self.skipped is None else present & ~self.skipped[pictures]

    def complete(self) -> Tensor:
        """Rows (R,) with pictures, for which every expert is present and none is corrupted or skipped."""
        sound = self.present_shown(slice(None)).all(1) & (self.corrupted < 0)[self.shown]
        count = torch.bincount(self.row, minlength=len(self.groups))
        return (count > 0) & (torch.bincount(self.row[sound], minlength=len(self.groups)) == count)


def draw_batch(
    ctx: TrainingContext,
    packer: Packer,
    stage: str,
    step: int,
    micro: int,
    *,
    start: int,
    size: int,
    per_question: bool,
    chats: bool = False,
) -> InstructBatch:
    """The batch of a micro-step: samples ``start .. start + size``, some with an expert missing or corrupted.

    Args:
        chats: the language model learns, so plain chat takes the place of some samples if the recipe wants that.

    Raises:
        AstreaError: the recipe wants plain chat, and the context has none.
    """
    chat = chat_rows(ctx.recipe, stage, step, micro, size) if chats else 0
    samples = ctx.data.draw(start, size - min(chat, size - 1), ctx.recipe.seed)
    captions = ctx.captions(samples, stage, step, micro)

    def pack(reworded: Sequence[Reword | None] | None) -> Rows:
        rows = ctx.data.pack(packer, samples, captions.which, per_question=per_question, reworded=reworded)
        if not chat:
            return rows
        if ctx.chat is None:
            raise AstreaError("data.text_share asks for plain chat, and none has been made", "set data.text_share=0")
        drawn = generator_for(ctx.recipe.seed, stage, "chat", step, micro)
        numbered = rows.packed.questions is not None
        return with_chat(rows, ctx.chat.rows(packer, chat, drawn, conversations=numbered), packer.pad)

    rows = pack(None)
    generator = generator_for(ctx.recipe.seed, stage, "present", step, micro)
    experts, settings = len(ctx.model.experts.names), ctx.recipe.regularisation
    lost = draw_experts(samples.pictures, experts, settings.expert_dropout, generator)
    present = lost.unsqueeze(1) != torch.arange(experts)
    corrupted = draw_experts(samples.pictures, experts, settings.corruption, generator)
    return InstructBatch(
        rows.packed, rows.groups, rows.shown, rows.row, samples, captions, present, corrupted, micro, pack
    )


def packed_rows(packed: PackedBatch, rows: slice | Tensor) -> PackedBatch:
    """Some rows of a packed batch, as long as they all are."""
    parts = {field.name: getattr(packed, field.name) for field in fields(packed)}
    return replace(packed, **{name: part[rows] for name, part in parts.items() if isinstance(part, Tensor)})


def backfill(has: Tensor) -> Tensor:
    """(B,) each sample's own place, or that of the next one, round and round, that has what is asked for."""
    there = has.nonzero()[:, 0]
    following = torch.searchsorted(there, torch.arange(len(has)))
    return there[following % len(there)]


def captions_at(captions: CaptionBatch, place: Tensor) -> CaptionBatch:
    """The texts at some places."""
    numbers = None if captions.numbers is None else captions.numbers[place]
    return CaptionBatch(
        captions.which[place], [captions.tokens[at] for at in place.tolist()], captions.ids[place], numbers
    )
