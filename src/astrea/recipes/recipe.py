"""A whole run as one tree of small frozen models, read from strict YAML plus dotted overrides.

Defaults live in the parts, once; a recipe states only what it changes or wants seen. The parts are in the files beside
this one and are imported from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from astrea.common.errors import AstreaError
from astrea.common.paths import refuse_url
from astrea.experts.names import wrong_with
from astrea.fusion.registry import ASTREA
from astrea.recipes.data import Data, TrainFile, World
from astrea.recipes.evaluation import Evaluation
from astrea.recipes.experts import ExpertEntry
from astrea.recipes.llm import LanguageModel
from astrea.recipes.model import PHRASE_KEYS, Contrast, Model, Regularisation
from astrea.recipes.part import Part
from astrea.recipes.pretraining import Distill, ExpertPretraining, LanguagePretraining, Pretraining, PretrainPart
from astrea.recipes.renamed import RENAMED
from astrea.recipes.runtime import Runtime
from astrea.recipes.stages import AlignStage, Losses, Schedule, Stage
from astrea.recipes.strategies import REGULARISATION_KEYS, check_losses

__all__ = [
    "AlignStage",
    "Contrast",
    "Data",
    "Distill",
    "ExpertEntry",
    "ExpertPretraining",
    "LanguageModel",
    "LanguagePretraining",
    "Losses",
    "Model",
    "Part",
    "PretrainPart",
    "Pretraining",
    "Recipe",
    "Regularisation",
    "Runtime",
    "Schedule",
    "Stage",
    "TrainFile",
    "World",
]


class Recipe(Part):
    """A whole run."""

    RENAMED: ClassVar[Mapping[str, str]] = RENAMED
    HAS_STRATEGY: ClassVar[bool] = True

    name: str
    seed: int = 0
    threads: int = Field(2, ge=1)
    pretrain: str = Field(
        "shipped",
        description='"shipped"; "shipped-neutral", whose language model has met none of the tasks; "scratch"; or a '
        "folder of pretrained parts",
    )
    start: str | None = Field(
        None, description='a finished model to go on from ("shipped" or its folder), instead of parts; null = none'
    )
    world: World = World()
    data: Data = Data()
    evaluation: Evaluation = Evaluation()
    experts: dict[str, ExpertEntry]
    llm: LanguageModel = LanguageModel()
    model: Model = Model()
    contrast: Contrast = Contrast()
    regularisation: Regularisation = Regularisation()
    pretraining: Pretraining = Pretraining()
    distill: Distill | None = None
    runtime: Runtime = Runtime()
    align: AlignStage
    fuse: Stage
    tune: Stage

    @model_serializer(mode="wrap")
    def _without_start(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # As with the data's newer keys, and with keys of model that the strategy does not read.
        unsaid = {"start"} if self.start is None else set()
        unsaid |= set() if self.evaluation.tasks else {"evaluation"}
        made = {key: value for key, value in dump(self).items() if key not in unsaid}
        if self.model.strategy != ASTREA and "regularisation" in made:
            said = self.regularisation.model_fields_set
            other = [key for key in REGULARISATION_KEYS if key not in said]
            made["regularisation"] = {k: v for k, v in made["regularisation"].items() if k not in other}
        if self.model.findings != "phrases" and "regularisation" in made:
            made["regularisation"] = {k: v for k, v in made["regularisation"].items() if k not in PHRASE_KEYS}
        return made

    @field_validator("pretrain", "start")
    @classmethod
    def _is_on_this_machine(cls, given: str | None) -> str | None:
        try:
            refuse_url(given or "")
        except AstreaError as error:
            raise ValueError(f"{error.message}; {error.hint}") from None
        return given

    @model_validator(mode="after")
    def _losses_are_the_strategys(self) -> Recipe:
        weights = {stage: getattr(self, stage).losses.weights for stage in ("fuse", "tune")}
        check_losses(self.model.strategy, weights, self.regularisation.model_fields_set)
        return self

    @model_validator(mode="after")
    def _no_word_match_unless_warmed_up(self) -> Recipe:
        # Only the language model built here is warmed up with it. Written into the recipe, so that a run's own copy
        # says what it was trained with.
        if not self.llm.tiny and "word_match" not in self.model.model_fields_set:
            object.__setattr__(self, "model", self.model.model_copy(update={"word_match": 0.0}))
        return self

    @model_validator(mode="after")
    def _chat_is_of_a_language_model_that_can(self) -> Recipe:
        if self.data.text_share and self.llm.tiny:
            raise ValueError("data.text_share is of language models with a checkpoint; the one built here has no chat")
        return self

    @model_validator(mode="after")
    def _experts_have_names(self) -> Recipe:
        teachers = () if self.distill is None else self.distill.teachers
        for name in (*self.experts, *teachers):
            if (why := wrong_with(name)) is not None:
                raise ValueError(why)
        return self

    @model_validator(mode="after")
    def _students_are_taught(self) -> Recipe:
        if self.distill is not None and self.distill.student not in self.experts:
            raise ValueError(f"distill.student {self.distill.student!r} is none of the experts {list(self.experts)}")
        others = dict(self.experts)
        if self.distill is not None:
            del others[self.distill.student]
            others |= self.distill.teachers
        idle = [name for name, entry in others.items() if entry.kind == "student"]
        if idle:
            raise ValueError(f"the expert {idle[0]!r} is a student that nobody teaches; give the run a `distill`")
        return self

    @model_validator(mode="after")
    def _some_expert_learns(self) -> Recipe:
        stages = [name for name in ("fuse", "tune") if "experts" in getattr(self, name).train]
        if stages and all(entry.frozen for entry in self.experts.values()):
            raise ValueError(f"{stages[0]}.train names `experts`, and every expert is frozen")
        return self

    @property
    def learning_experts(self) -> tuple[str, ...]:
        """The experts that learn in some stage, in order."""
        learn = any("experts" in stage.train and stage.steps for stage in (self.fuse, self.tune))
        return tuple(name for name, entry in self.experts.items() if learn and not entry.frozen)
