"""The photograph world: cut-out photographs of things on photographic backgrounds, with questions and captions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from astrea.common.errors import AstreaError
from astrea.common.progress import SILENT, Reporter
from astrea.confidence.estimator import ConfidenceEstimator
from astrea.confidence.familiarity import learn_familiar
from astrea.data.feature_cache import FeatureCache
from astrea.experts.bank import ExpertBank
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.world.evaluation.runner import EncodedTestSets, Outcome
from astrea.world.photographs.compositions import Compositions, open_compositions
from astrea.world.photographs.dataset import PhotographData, features_of, load_photographs
from astrea.world.photographs.evaluate import evaluate
from astrea.world.photographs.pretrain import pretrain
from astrea.world.scene_world import SceneWorld

FEWEST, PICTURES = 8, 256
"""Training compositions from which is learned what is familiar: as many as there are within these."""


class PhotographWorld(SceneWorld):
    """`World` of `astrea.world.photographs`; ``world.options`` are `PhotographOptions`."""

    @cached_property
    def made(self) -> Compositions:
        """All that it shows."""
        for key in ("paraphrases", "unanswerable"):
            if getattr(self.recipe.data, key):
                raise AstreaError(f"data.{key} is of the drawn world's questions", f"set data.{key}=0")
        return open_compositions(self.recipe.world)

    def training_data(self, experts: ExpertBank, *, cache: FeatureCache, report: Reporter = SILENT) -> PhotographData:
        data = self.recipe.data
        return load_photographs(
            experts,
            self.made,
            count=data.train_scenes,
            per_scene=data.questions_per_scene,
            cache=cache,
            report=report,
        )

    def learn_confidence(
        self, model: AstreaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
    ) -> ConfidenceEstimator:
        """What is familiar from training compositions. How sure to be is not fitted: that an answer about a composition
        is right says little about other photographs."""
        count = max(FEWEST, min(PICTURES, self.recipe.data.train_scenes))
        seen = features_of(model.experts, self.made, list(self.made.scenes("train", count)))
        # Text that is read comes as the numbers of its words, and how far these are from others means nothing.
        meant = [name for name in model.experts.names if "text" not in model.experts[name].slots]
        return ConfidenceEstimator({name: learn_familiar(seen[name]) for name in meant})

    def pretrain(self, folder: Path, *, report: Reporter = SILENT) -> None:
        pretrain(self.recipe, self.made, folder, report=report)

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
        return evaluate(
            model, tokenizer, self.made, self.recipe.data, tasks=tasks, masking=masking, split=split, report=report
        )
