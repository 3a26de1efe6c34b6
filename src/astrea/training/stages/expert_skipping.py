"""Training rows that leave out the experts which a server that skips experts would not run for their questions.

What a model has never answered without, it is bad at answering without. So a threshold is drawn for every batch, and
each question is read without the experts whose gate weight, expected from the question alone, is less. Since
the mixer lets experts' tokens read one another, what is left out must be so for a whole row: a row whose questions
leave out different experts becomes several rows of the same picture.

Letters: B rows, L length, S questions per row, N pictures as rows show them, E experts, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.common.float32 import in_full, wide
from astrea.confidence.familiarity import summary
from astrea.data.packing import PackedBatch, Packer
from astrea.experts.protocol import ExpertFeatures
from astrea.fusion.astrea import AstreaFusion
from astrea.model.expected_weights import expected_weights, not_needed, usual_features
from astrea.model.rows import asked_tokens, mean_questions
from astrea.training.context import TrainingContext
from astrea.training.plain_chat import FILL
from astrea.training.stages.batch import InstructBatch


@torch.no_grad()
def skip_experts(
    ctx: TrainingContext,
    batch: InstructBatch,
    features: Mapping[str, ExpertFeatures],
    most: float,
    generator: torch.Generator,
) -> InstructBatch:
    """The batch with rows that skip experts.

    Args:
        features: of the batch's pictures; their mean stands for a usual picture.
        most: thresholds are drawn evenly from 0 to this, one for every batch: rows that skip as much as one another are
            about as long, and little of them is padding.
    """
    if not batch.samples.pictures:
        return batch
    below = most * torch.rand((), generator=generator)
    skip_BSE = not_needed(weights_of(ctx, batch.packed, features).cpu(), below)
    pictured_B = torch.bincount(batch.row, minlength=len(batch.groups)) > 0
    return split(batch, skip_BSE & pictured_B[:, None, None], ctx.packer)


def weights_of(ctx: TrainingContext, packed: PackedBatch, features: Mapping[str, ExpertFeatures]) -> Tensor:
    """Each expert's expected gate weight for every question (B, S, E).

    Raises:
        AstreaError: the model has no gate.
    """
    model, fusion = ctx.model, ctx.model.fusion
    if not isinstance(fusion, AstreaFusion) or fusion.allocator is None:
        raise AstreaError(
            "experts are skipped by their gate weights, and this model has none", "set regularisation.expert_skipping=0"
        )
    inputs = {name: value.to(ctx.ranks.device) for name, value in packed.model_inputs().items()}
    ids, numbers = inputs["input_ids"], inputs.get("questions", inputs["segments"])
    is_image, real = ids == ctx.packer.image, inputs["attention_mask"].bool()
    asked = asked_tokens(is_image, real, inputs.get("question_mask"), inputs["labels"])
    embeds = model.get_input_embeddings()(ids)
    question_BSD = mean_questions(embeds.to(wide(embeds.dtype)), asked, numbers)
    usual = {
        name: usual_features(summary(part).mean(0).to(ids.device), part.tokens.shape[-1], part.tokens.shape[1])
        for name, part in features.items()
    }
    matrix = model.with_words(in_full(model.alignment, usual, None))
    weights_QE = expected_weights(fusion.allocator, question_BSD.flatten(0, 1), matrix)
    return weights_QE.view(*question_BSD.shape[:2], -1)


def split(batch: InstructBatch, skip_BSE: Tensor, packer: Packer) -> InstructBatch:
    """One row for all questions of a row that skip the same experts.

    A conversation of several questions has one set of pictures: it skips what none of its questions needs.

    Args:
        skip_BSE: (B, S, E) bool, what each question skips.
    """
    packed = batch.packed
    numbers = packed.segments if packed.questions is None else packed.questions
    kept: list[tuple[int, Tensor]] = []
    groups, shown, row, skipped = [], [], [], []
    for at, (segments, number) in enumerate(zip(packed.segments, numbers, strict=True)):
        sets: dict[tuple[bool, ...], list[int]] = {}
        for segment in segments[segments > 0].unique().tolist():
            own = number[segments == segment].unique() - 1
            sets.setdefault(tuple(skip_BSE[at, own].all(0).tolist()), []).append(segment)
        pictures = batch.shown[batch.row == at].tolist()
        first = (packed.input_ids[at] == packer.image).nonzero()[:: packer.picture_tokens, 0]
        for left_out, members in sets.items():
            mine = torch.isin(segments, torch.tensor(members))
            keep = mine | (segments == 0)
            there = [picture for picture, stays in zip(pictures, keep[first].tolist(), strict=True) if stays]
            shown += there
            row += [len(kept)] * len(there)
            skipped += [left_out] * len(there)
            asked = number[mine].unique() - 1
            groups.append(torch.full_like(batch.groups[at], -1).index_copy(0, asked, batch.groups[at, asked]))
            kept.append((at, keep.nonzero()[:, 0]))
    return replace(
        batch,
        packed=rows_of(packed, kept, packer.pad),
        groups=torch.stack(groups),
        shown=torch.tensor(shown, dtype=torch.long),
        row=torch.tensor(row, dtype=torch.long),
        skipped=torch.tensor(skipped, dtype=torch.bool).view(-1, skip_BSE.shape[-1]),
    )


def rows_of(packed: PackedBatch, kept: Sequence[tuple[int, Tensor]], pad: int) -> PackedBatch:
    """Rows made of some tokens of a row each (the row, and which), padded on the right."""
    length = max(len(tokens) for _, tokens in kept)

    def gathered(name: str, column: Tensor) -> Tensor:
        made = column.new_full((len(kept), length), pad if name == "input_ids" else FILL.get(name, 0))
        for number, (row, tokens) in enumerate(kept):
            made[number, : len(tokens)] = column[row, tokens]
        return made

    columns = {field.name: getattr(packed, field.name) for field in fields(packed)}
    return replace(
        packed, **{name: gathered(name, column) for name, column in columns.items() if isinstance(column, Tensor)}
    )
