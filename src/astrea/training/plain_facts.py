"""Before and after a run: what its pretrained language model answers to plain facts, noted beside the model."""

from __future__ import annotations

from pathlib import Path

from astrea.common.files import write_json_atomic
from astrea.common.paths import file_guard, is_file, read_json
from astrea.common.progress import Reporter
from astrea.evaluation.forgetting import KEPT, Recalled, compare, recall
from astrea.report.results import Forgetting
from astrea.training.context import TrainingContext

LABEL = "asking plain facts"


def recall_facts(ctx: TrainingContext, report: Reporter) -> Recalled | None:
    """How the model answers them now; None where its language model is none that was taught elsewhere, or for a process
    that does not lead."""
    if ctx.recipe.llm.checkpoint is None or not ctx.ranks.is_main:
        return None
    report.track(LABEL, 0, 1)
    found = recall(ctx.model, ctx.tokenizer)
    report.track(LABEL, 1, 1)
    return found


def report_forgetting(ctx: TrainingContext, before: Recalled | None, folder: Path, report: Reporter) -> None:
    """Say, and note in ``folder/language.json``, what training has done to the facts."""
    after = None if before is None else recall_facts(ctx, report)
    if before is None or after is None:
        return
    found = compare(before, after)
    report.say(Forgetting.model_validate(found).sentence())
    with file_guard(folder):
        path = folder / KEPT
        noted = read_json(path) if is_file(path) else {}
        write_json_atomic(path, noted | {"forgetting": found})
