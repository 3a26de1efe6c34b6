"""How the pretrained parts of the embedded world are made."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import (
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from astrea.recipes.experts import ExpertEntry
from astrea.recipes.part import Part
from astrea.recipes.stages import Schedule


class PretrainPart(Part):
    """Length of one pretrained part's own training."""

    LATER: ClassVar[tuple[str, ...]] = ()
    """Keys that were added when parts had been made: those say what they were made with, and do not have them. Left out
    where they have their default."""

    steps: PositiveInt
    batch: PositiveInt
    lr: float = Field(gt=0)
    warmup: int = Field(100, ge=1)
    weight_decay: float = Field(0.02, ge=0)
    muon: float = Field(0.0, ge=0, description="as in a stage; only the language model has hidden matrices")

    def schedule(self) -> Schedule:
        """What the training loop reads."""
        return Schedule(
            steps=self.steps,
            batch=self.batch,
            lr=self.lr,
            warmup=self.warmup,
            weight_decay=self.weight_decay,
            muon=self.muon,
        )

    @model_serializer(mode="wrap")
    def _without_later(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        usual = {key: type(self).model_fields[key].default for key in self.LATER}
        return {key: value for key, value in dump(self).items() if key not in usual or value != usual[key]}


class ExpertPretraining(PretrainPart):
    """Every compact expert's."""

    LATER = ("weak_share", "scenes")

    steps: PositiveInt = 2400
    batch: PositiveInt = 64
    lr: float = Field(3e-3, gt=0)
    weak_share: float = Field(
        0.15, ge=0, le=1, description="share of the scenes in its weak conditions that an expert gets to see"
    )
    scenes: int = Field(
        0,
        ge=0,
        description="different scenes that it learns from; 0 = fresh ones at every step. Few make it overconfident",
    )


class LanguagePretraining(PretrainPart):
    """The small language model's."""

    LATER = ("text",)

    steps: PositiveInt = 3000
    batch: PositiveInt = 8
    lr: float = Field(2e-3, gt=0)
    muon: float = Field(2.0, ge=0, description="learning rate of the hidden matrices over lr, by Muon; 0 = AdamW")
    text: Literal["tasks", "sentences"] = Field(
        "tasks",
        description="what it learns from: scenes told in words with the tasks' questions and answers, or plain "
        "sentences alone (neutral: no strategy of fusion finds its own input format in it)",
    )


class Distill(PretrainPart):
    """One student expert, taught by several others before the first stage (see astrea.world.distill)."""

    student: str = Field("student", description="which of the run's experts learns")
    teachers: dict[str, ExpertEntry] = Field(min_length=1, description="experts as in `experts`, from the same parts")
    steps: PositiveInt = 400
    batch: PositiveInt = 64
    lr: float = Field(2e-3, gt=0)
    warmup: int = Field(40, ge=1)


class Pretraining(Part):
    """How `astrea pretrain` makes the parts that ship with the package."""

    expert: ExpertPretraining = ExpertPretraining()
    llm: LanguagePretraining = LanguagePretraining()
    min_accuracy: float = Field(
        0.8, ge=0, le=1, description="accuracy on ground-truth tokens the language model must reach"
    )
