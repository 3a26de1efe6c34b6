"""What a run leaves behind so that its model knows which experts contradict the others: how sound ones agree."""

from __future__ import annotations

import torch

from astrea.common.progress import Reporter
from astrea.data.streaming import FileDataset
from astrea.experts.protocol import concat_features
from astrea.experts.word_agreement import learn_agreement
from astrea.training.context import TrainingContext

PICTURES, BATCH, FEWEST = 1024, 32, 128
"""How many training pictures are looked at, and how many there have to be: a limit is a quantile of their distances."""


@torch.no_grad()
def learn_word_agreement(ctx: TrainingContext, report: Reporter) -> None:
    """Give the finished model what is usual in training pictures, if the recipe asks for it (``model.agreement``).

    Nothing where there is one expert alone, or data files with too few pictures. Where several processes share the
    work, each has to call it.

    Raises:
        AstreaError: more experts than can be judged.
    """
    model = ctx.model.model
    if not model.config.agreement or len(model.experts.names) < 2:
        return
    count = PICTURES
    if isinstance(ctx.data, FileDataset):
        count = min(PICTURES, len(ctx.data.pairs)) // BATCH * BATCH if ctx.data.pictured else 0
        if count < FEWEST:
            report.say(f"agreement is not judged: that takes {FEWEST} training pictures")
            return
    parts = []
    for start in range(0, count, BATCH):
        samples = ctx.data.draw(start, BATCH, ctx.recipe.seed, pairs=True)
        found = ctx.encode_trainable(samples, learning=False)
        parts.append({name: part.map(torch.Tensor.cpu) for name, part in found.items()})
        report.track("how experts agree", start + BATCH, count)
    labels = {name: model.experts[name].labels for name in model.experts.names}
    model.word_agreement = learn_agreement(concat_features(parts), labels)
