"""Which caption belongs to which picture, among all captions and pictures of one's own data.

Letters: N pictures, C captions, P contrast width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from astrea.common.progress import Reporter
from astrea.data.readers.conversation import picture_id
from astrea.evaluation.generate import Predictor, encode
from astrea.evaluation.metrics.retrieval import recall_at, retrieval_ranks
from astrea.evaluation.own_data.items import Item
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor

BATCH = 16
KS = (1, 5, 10)


@torch.inference_mode()
def retrieval_tasks(
    model: AstreaForConditionalGeneration, processor: AstreaProcessor, items: Sequence[Item], report: Reporter
) -> dict[str, dict[str, Any]]:
    """The tasks ``retrieval_i2t`` and ``retrieval_t2i``, by the contrast of pictures and texts; nothing where fewer
    than two pictures have captions. Records that show the same picture are one; ``blind`` is what chance gives.

    Args:
        items: whose pictures can be read.
    """
    by_picture: dict[int, list[Item]] = {}
    for item in items:
        if item.kind == "caption" and item.sample.record.images:
            by_picture.setdefault(picture_id(item.sample), []).append(item)
    if len(by_picture) < 2:
        return {}
    groups = list(by_picture.values())
    texts = [text for group in groups for item in group for text in item.truths]
    owners = [number for number, group in enumerate(groups) for item in group for _ in item.truths]
    predictor = Predictor(model, processor.tokenizer, batch=BATCH)
    vectors_NP = []
    for start in range(0, len(groups), BATCH):
        samples = [group[0].sample for group in groups[start : start + BATCH]]
        pictures = [sample.picture(sample.record.images[0]) for sample in samples]
        vectors_NP.append(model.embed_image(features=encode(model, processor, pictures)).cpu())
        report.track("embedding pictures", min(start + BATCH, len(groups)), len(groups))
    words_CP = predictor.embed_texts(texts)
    ranks = retrieval_ranks(torch.cat(vectors_NP).numpy(), words_CP.numpy(), np.array(owners))
    return {
        name: {
            "metric": "recall@1",
            "score": recall_at(found, 1),
            "n": len(found),
            "blind": 100 / len(groups),
            "secondary": {f"recall@{k}": recall_at(found, k) for k in KS[1:]},
        }
        for name, found in zip(("retrieval_i2t", "retrieval_t2i"), ranks, strict=True)
    }
