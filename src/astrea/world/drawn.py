"""The drawn world: pictures of coloured shapes that are drawn as they are needed, with questions and captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from astrea.common.progress import SILENT, Reporter
from astrea.confidence.estimator import ConfidenceEstimator
from astrea.data.feature_cache import FeatureCache
from astrea.experts.bank import ExpertBank
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.world.confidence import PICTURES, QUESTIONS, fit_estimator
from astrea.world.dataset import WorldData, load_world
from astrea.world.distill import teach
from astrea.world.evaluation.runner import EncodedTestSets, Outcome, evaluate
from astrea.world.language.wordings import learn_wordings
from astrea.world.pretrain import pretrain
from astrea.world.scene_world import SceneWorld


class DrawnWorld(SceneWorld):
    """`World` of `astrea.world.scenes`: eight kinds of questions, captions and retrieval."""

    def training_data(self, experts: ExpertBank, *, cache: FeatureCache, report: Reporter = SILENT) -> WorldData:
        recipe = self.recipe
        return load_world(
            experts,
            recipe.world,
            count=recipe.data.train_scenes,
            per_scene=recipe.data.questions_per_scene,
            paraphrases=recipe.data.paraphrases,
            unanswerable_share=recipe.data.unanswerable,
            cache=cache,
            progress=report.track,
            notify=report.say,
        )

    def learn_vocabulary(
        self, model: AstreaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
    ) -> PreTrainedTokenizerBase:
        needed = self.recipe.data.paraphrases or self.recipe.data.unanswerable
        return learn_wordings(model, tokenizer) if needed else tokenizer

    def learn_confidence(
        self, model: AstreaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
    ) -> ConfidenceEstimator:
        # Measured on as little as the run's test is.
        pictures = max(8, min(PICTURES, self.recipe.data.train_scenes))
        questions = min(QUESTIONS, 6 * self.recipe.data.test_questions)
        return fit_estimator(model, tokenizer, self.recipe.world, pictures=pictures, questions=questions)

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
            model,
            tokenizer,
            self.recipe.world,
            self.recipe.data,
            tasks=tasks,
            masking=masking,
            split=split,
            report=report,
        )

    def pretrain(self, folder: Path, *, report: Reporter = SILENT) -> None:
        pretrain(self.recipe, folder, report=report)

    def distill(
        self, experts: ExpertBank, components: Path, folder: Path, *, cache: FeatureCache, report: Reporter = SILENT
    ) -> float:
        assert self.recipe.distill is not None
        return teach(self.recipe, self.recipe.distill, experts, components, folder, cache=cache, report=report)
