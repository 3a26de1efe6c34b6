"""Worlds: what a recipe without data files trains and is evaluated on.

A world makes or reads its own pictures, questions and captions; `astrea.world.drawn` and `astrea.world.photographs` are
built in. One from another package needs a subclass of `World` and a line in the recipe: ``world.kind``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from transformers import PreTrainedTokenizerBase

from astrea.common.errors import AstreaError
from astrea.common.progress import SILENT, Reporter
from astrea.common.registry import Registry
from astrea.data.feature_cache import FeatureCache
from astrea.data.protocol import TrainingData
from astrea.experts.bank import ExpertBank
from astrea.experts.protocol import ExpertFeatures

if TYPE_CHECKING:
    from astrea.confidence.estimator import ConfidenceEstimator
    from astrea.model.modeling import AstreaForConditionalGeneration
    from astrea.model.processing import AstreaProcessor
    from astrea.recipes.recipe import Recipe

BUILT_IN = {
    "drawn": "astrea.world.drawn:DrawnWorld",
    "photographs": "astrea.world.photographs.world:PhotographWorld",
}
WORLDS = Registry("world", BUILT_IN, group="astrea.worlds")


class WorldTrainingData(TrainingData, Protocol):
    """A world's training split: it may also be asked for some of its questions."""

    def __len__(self) -> int:
        """How many pictures there are."""

    def questions_about(self, pictures: int) -> tuple[list[str], dict[str, ExpertFeatures]]:
        """All questions about the first pictures of the training split, and each question's features, one row each."""


class World(ABC):
    """One world, with the settings of a recipe.

    Args:
        recipe: ``recipe.world`` says how the pictures are made, ``recipe.data`` how many there are.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @abstractmethod
    def training_data(
        self, experts: ExpertBank, *, cache: FeatureCache, report: Reporter = SILENT
    ) -> WorldTrainingData:
        """The training split, with what the experts see in it out of the cache where that has it."""

    @abstractmethod
    def learn_confidence(
        self, model: AstreaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
    ) -> ConfidenceEstimator | None:
        """When a model of this world should doubt its answer, from the training and the validation split; None where
        the world cannot tell."""

    @abstractmethod
    def evaluate(
        self,
        model: AstreaForConditionalGeneration,
        processor: AstreaProcessor,
        folder: Path,
        *,
        split: str,
        report: Reporter = SILENT,
    ) -> dict[str, Any]:
        """Evaluate a model on this world's own tasks; write sample pictures into ``folder``.

        Returns:
            What ``results.json`` holds (`astrea.report.results.Results`); scores 0..100.
        """

    def measure(
        self,
        model: AstreaForConditionalGeneration,
        processor: AstreaProcessor,
        *,
        tasks: Sequence[str],
        masking: bool = False,
        split: str = "test",
        report: Reporter = SILENT,
    ) -> dict[str, Any]:
        """`evaluate` on some tasks, without sample pictures, of any model: what `astrea evaluate` does.

        Args:
            tasks: names. masking: also without each expert in turn.

        Raises:
            AstreaError: this world has no tasks that can be chosen among.
        """
        raise AstreaError(
            f"the tasks of the world {self.recipe.world.kind!r} cannot be measured apart from a run",
            "evaluate the run's folder as a whole",
        )

    def learn_vocabulary(
        self, model: AstreaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
    ) -> PreTrainedTokenizerBase:
        """Give a model the words of this world's questions that it lacks; returns the tokenizer that knows them."""
        return tokenizer

    def pretrain(self, folder: Path, *, report: Reporter = SILENT) -> None:
        """Train what a recipe's model starts from (compact experts, language model) and write it into ``folder``.

        Raises:
            AstreaError: this world has nothing to pretrain.
        """
        raise AstreaError(
            f"nothing can be pretrained on the world {self.recipe.world.kind!r}",
            'set pretrain to "shipped" or a folder',
        )

    def distill(
        self, experts: ExpertBank, components: Path, folder: Path, *, cache: FeatureCache, report: Reporter = SILENT
    ) -> float:
        """Teach the student expert of ``recipe.distill``, and keep it in ``folder``; returns the seconds that took.

        Args:
            components: the folder of the teachers' pretrained weights.

        Raises:
            AstreaError: no student can be taught on this world.
        """
        raise AstreaError(
            f"no student can be distilled on the world {self.recipe.world.kind!r}", "leave `distill` out of the recipe"
        )


def open_world(recipe: Recipe) -> World:
    """The world that a recipe names.

    Raises:
        AstreaError: no such world, or it does not take these settings.
    """
    name = recipe.world.kind
    found = WORLDS.find(name, allow_import=True)  # a recipe is the user's own word
    if not (isinstance(found, type) and issubclass(found, World)):
        raise AstreaError(f"world {name!r} is no subclass of astrea.data.worlds.World", "derive it from that class")
    return found(recipe)
