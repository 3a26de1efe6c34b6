"""Measuring a model on held-out files."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from astrea.common.errors import AstreaError
from astrea.common.progress import SILENT, Reporter
from astrea.data.packing import Packer
from astrea.data.readers.mixture import Source
from astrea.data.readers.trainable import Trainable
from astrea.data.readers.warnings import RateLimitedWarnings
from astrea.evaluation.own_data.answers import Answers, ItemPredictor
from astrea.evaluation.own_data.items import Item, items_of
from astrea.evaluation.own_data.masked import score_changes
from astrea.evaluation.own_data.retrieval import retrieval_tasks
from astrea.evaluation.own_data.score import by_source, score
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor


@dataclass(frozen=True, slots=True)
class Measured:
    """What was asked, what was answered, and the scores of it as `results.json` has them."""

    items: list[Item]
    answers: Answers
    results: dict[str, Any]


def measure(
    model: AstreaForConditionalGeneration,
    processor: AstreaProcessor,
    sources: Sequence[Source],
    *,
    limit: int | None = None,
    batch: int = 16,
    masking: bool = False,
    report: Reporter = SILENT,
) -> Measured:
    """Let a model answer held-out data, with pictures and blind.

    Args:
        limit: records of each source; None = all.
        masking: also without each expert in turn, on some of the items (`astrea.evaluation.own_data.masked`).

    Raises:
        AstreaError: there is no record that could be answered.
    """
    started = time.perf_counter()
    packer = Packer(processor.tokenizer, model.num_visual_tokens)
    positions = getattr(model.config.text_config, "max_position_embeddings", None) or sys.maxsize
    items = list(items_of(sources, Trainable(packer, positions), RateLimitedWarnings(report.say), limit))
    names = ", ".join(dict.fromkeys(source.reader.path.name for source in sources))
    if not items:
        raise AstreaError(f"{names}: holds nothing to be answered", "look it over with astrea validate")
    predictor = ItemPredictor(model, processor, batch)
    answers = predictor.answer(items, report)
    found = score(items, answers, model.experts.names)
    readable = [item for item, said in zip(items, answers.with_pictures, strict=True) if said is not None]
    found["tasks"] |= retrieval_tasks(model, processor, readable, report)
    files = [source.reader.path.name for source in sources]
    if len(set(files)) > 1:
        found["sources"] = by_source(items, answers, files)
    if masking:
        found |= score_changes(predictor, items, answers, report)
    learned = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("model.experts."))
    found |= {
        "data": [str(source.reader.path) for source in sources],
        "seconds": {"evaluate": time.perf_counter() - started},
        "params": {"total": sum(p.numel() for p in model.parameters()), "trainable": learned},
    }
    return Measured(items, answers, found)
