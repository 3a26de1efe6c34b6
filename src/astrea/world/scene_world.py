"""What worlds of scenes with full truth have in common: they are measured on the twelve tasks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from astrea.common.progress import SILENT, Reporter
from astrea.data.worlds import World
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor
from astrea.world.evaluation.runner import EncodedTestSets, Outcome
from astrea.world.evaluation.samples import write_samples
from astrea.world.evaluation.tasks import TASKS


class SceneWorld(World):
    """A `World` whose `table` is computed from scenes."""

    @abstractmethod
    def table(
        self,
        model: AstreaForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        *,
        tasks: Sequence[str],
        masking: bool,
        split: str,
        report: Reporter = SILENT,
    ) -> tuple[dict[str, Any], EncodedTestSets, Outcome]:
        """What ``results.json`` holds of some tasks, and what it was made from."""

    def measure(
        self,
        model: AstreaForConditionalGeneration,
        processor: AstreaProcessor,
        *,
        tasks: Sequence[str] = TASKS,
        masking: bool = False,
        split: str = "test",
        report: Reporter = SILENT,
    ) -> dict[str, Any]:
        return self.table(model, processor.tokenizer, tasks=tasks, masking=masking, split=split, report=report)[0]

    def evaluate(
        self,
        model: AstreaForConditionalGeneration,
        processor: AstreaProcessor,
        folder: Path,
        *,
        split: str,
        report: Reporter = SILENT,
    ) -> dict[str, Any]:
        results, encoded, outcome = self.table(
            model, processor.tokenizer, tasks=TASKS, masking=True, split=split, report=report
        )
        write_samples(model, encoded, outcome, folder)
        return results
