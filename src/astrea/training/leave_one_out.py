"""What each expert's absence costs the answers, measured by answering again without it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from astrea.common.memory import give_back
from astrea.data.packing import answer_losses
from astrea.experts.protocol import ExpertFeatures, index_select
from astrea.training.context import TrainingContext
from astrea.training.stages.batch import InstructBatch, packed_rows


@torch.no_grad()
def leave_one_out(
    ctx: TrainingContext, batch: InstructBatch, features: Mapping[str, ExpertFeatures], rows: int
) -> Tensor:
    """Increase of each question's loss without each expert, in nats: (min(rows, R), S, E), the same on every process.

    Letters: R rows of the batch, S questions per row, E experts.

    The first rows of the whole batch are divided so that every process has equally many: the last ones may take a row
    twice, and it counts once.

    Args:
        features: of the batch's pictures, uncorrupted.
    """
    give_back()
    model, ranks = ctx.model, ctx.ranks
    experts = len(model.experts.names)
    rows = min(rows, len(batch.groups))
    each = -(-rows // ranks.world)
    mine = torch.arange(each * ranks.rank, each * (ranks.rank + 1)).clamp_max(rows - 1)
    again = mine.repeat(experts + 1)
    packed = packed_rows(batch.packed, again)
    inputs = {name: value.to(ranks.device) for name, value in packed.model_inputs().items()}
    at = torch.cat([(batch.row == row).nonzero()[:, 0] for row in mine.tolist()])
    shown = batch.shown[at].repeat(experts + 1)
    present = torch.cat([torch.ones(1, experts), 1 - torch.eye(experts)]).bool().repeat_interleave(len(at), 0)
    # With the labels' sum, rows that nothing is learned from are no error.
    logits = model(
        **inputs,
        features=index_select(features, shown) if len(shown) else None,
        present=present.to(ranks.device),
        num_items_in_batch=batch.labelled,
        use_cache=False,
    ).logits
    count = batch.groups.shape[1]
    loss = answer_losses(logits, inputs["labels"], inputs.get("questions", inputs["segments"]), count)
    base, without = loss[:each], loss[each:].view(experts, each, count)
    return ranks.gather((without - base).permute(1, 2, 0), each * ranks.world)[:rows].cpu()
