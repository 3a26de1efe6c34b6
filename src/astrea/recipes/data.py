"""What a run learns from: a world, or data files of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from astrea.recipes.part import BadKey, Part

USUAL: Mapping[str, Any] = {
    "min_objects": 1, "object_canvas": None, "clean": None, "test_clean": None, "test_pairs": 0.0,
}  # fmt: skip
"""Keys of `World` that are of the drawn one and are not written where they are off, and what they are then."""

MOST_OBJECTS = 8
"""In a picture of one `World.object_canvas`; one of four times the area has room for four times as many."""


class World(Part):
    """What is trained and evaluated on where ``data.train`` names no files: the embedded world of drawn scenes, or
    another one (see `astrea.data.worlds`)."""

    kind: str = Field("drawn", description='"drawn", a name that a package registered, or "module:Class"')
    canvas: int = Field(64, ge=48, le=512, multiple_of=8)
    difficulty: float = Field(0.5, ge=0, le=1)
    max_objects: int = Field(
        6, ge=1, le=40, description="pictograms in a picture; more than 8 need an object_canvas that leaves room"
    )
    min_objects: int = Field(1, ge=1, le=40, description="fewest pictograms, as far as there is room")
    object_canvas: int | None = Field(
        None, ge=48, le=512, description="pictograms and print are as large as on a canvas of this side; null = canvas"
    )
    seed: int = 0
    clean: float | None = Field(
        None, ge=0, lt=1, description="share of pictures without night, blur, noise and clutter; null = 0.44"
    )
    test_clean: float | None = Field(None, ge=0, lt=1, description="the same of test pictures; null = as in training")
    test_pairs: float = Field(
        0.0, ge=0, le=1, description="share of the other test pictures in which two hold at once: none in training has"
    )
    options: dict[str, Any] = Field({}, description="of another kind of world; the drawn one has the keys above")

    @model_validator(mode="after")
    def _settings_are_of_its_kind(self) -> World:
        drawn_only = {"difficulty", "max_objects", *USUAL} & self.model_fields_set
        if self.kind != "drawn" and drawn_only:
            raise ValueError(f"{min(drawn_only)} is of the drawn world; settings of {self.kind!r} stand in options")
        if self.kind == "drawn" and self.options:
            raise ValueError(f"{min(self.options)!r} is no setting of the drawn world")
        return self

    @model_validator(mode="after")
    def _has_room(self) -> World:
        unit = self.object_canvas or self.canvas
        if unit > self.canvas:
            raise BadKey(("object_canvas",), f"pictograms of a canvas of {unit} pixels on one of {self.canvas}")
        most = MOST_OBJECTS * (self.canvas // unit) ** 2
        if self.max_objects > most:
            raise BadKey(
                ("max_objects",), f"there is room for {most} pictograms; a smaller object_canvas makes them smaller"
            )
        if self.min_objects > self.max_objects:
            raise BadKey(("min_objects",), f"more than max_objects, which is {self.max_objects}")
        return self

    @model_serializer(mode="wrap")
    def _without_usual(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # The drawn world's settings are compared with, and hashed like, those from before there were others.
        own = ("kind", "options") if self.kind == "drawn" else ("difficulty", "max_objects", *USUAL)
        found = {key: value for key, value in dump(self).items() if key not in own}
        return {key: value for key, value in found.items() if key not in USUAL or value != USUAL[key]}


class TrainFile(Part):
    """One data file of one's own (see docs/data.md)."""

    path: str = Field(min_length=1, description='a file, or a pattern such as "shards/*.tar"')
    weight: float = Field(1.0, gt=0, le=1e6, description="how often each of its records is seen per epoch")
    images: str | None = Field(None, description="where its pictures' paths start; null = as data.images says")
    format: str | None = Field(None, description="null = found out from the file")


LATER = ("paraphrases", "unanswerable", "text_share", "patience")
"""Keys of `Data` that are not written where they are off."""


class Data(Part):
    """How much of the world a run sees, or which data of one's own instead."""

    train: str | TrainFile | tuple[str | TrainFile, ...] | None = Field(
        None, description="a file, {path, weight, images, format}, or a list of both; null = the world"
    )
    validation: float | str | TrainFile | tuple[str | TrainFile, ...] | None = Field(
        None,
        description="held-out data of one's own, as train: never learned from, but measured on; or the share of "
        "train's pictures (0.1, say) that is held out with their records",
    )
    validation_every: PositiveInt = Field(
        50, description="optimizer steps of fuse and tune between two measurements of the validation loss"
    )
    validation_records: PositiveInt = Field(128, description="of them that a validation loss is taken on")
    patience: PositiveInt | None = Field(
        None,
        description="tune ends when its validation loss has not fallen for so many measurements; null = with its steps",
    )
    keep_best: bool = Field(False, description="the finished model is that of the lowest validation loss of `tune`")
    images: str | None = Field(None, description="where the pictures' paths start; null = each data file's folder")
    max_tokens: PositiveInt | None = Field(
        None, description="of one's own data: longer conversations are left out; null = what the language model reads"
    )
    row_tokens: PositiveInt | None = Field(
        None, description="of one's own data: conversations share a row of so many tokens; null = one in each row"
    )
    train_scenes: PositiveInt = 6000
    questions_per_scene: int = Field(
        8,
        ge=1,
        le=24,
        description="of the world: up to 8 are of one task each; up to 16 of two templates of each, and so on",
    )
    test_questions: PositiveInt = Field(150, description="per VQA task")
    test_captions: PositiveInt = 150
    test_retrieval_groups: PositiveInt = Field(40, description="each has 4 pictures that differ in one attribute")
    test_masked: PositiveInt | None = Field(
        None,
        description="of the world: questions and captions per task that are answered again without each expert, and no "
        "retrieval; null = everything is",
    )
    paraphrases: float = Field(
        0.0, ge=0, le=1, description="of the world: share of training questions that are asked in other words"
    )
    unanswerable: float = Field(
        0.0, ge=0, lt=1, description='of the world: share of training questions answered "none" or "cannot tell"'
    )

    text_share: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="share of a batch's samples, where a language model with a checkpoint learns, that are plain chat "
        "without a picture, which it has made itself before: so that it forgets less",
    )

    @field_validator("train", "validation")
    @classmethod
    def _one_as_a_list(cls, given: Any) -> Any:
        return (given,) if isinstance(given, TrainFile) else given

    @model_validator(mode="after")
    def _is_of_the_world(self) -> Data:
        if self.train is not None and (self.paraphrases or self.unanswerable):
            raise ValueError("paraphrases and unanswerable are of the world's questions, and data.train names others")
        return self

    @model_serializer(mode="wrap")
    def _without_nothing(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What a run says nothing about is not written, so that it compares with those from before there was more.
        return {key: value for key, value in dump(self).items() if value or key not in LATER}

    @model_validator(mode="after")
    def _a_share_of_something(self) -> Data:
        if isinstance(self.validation, float):
            if not 0 < self.validation < 1:
                raise ValueError("the share that data.validation holds out lies between 0 and 1, such as 0.1")
            if self.train is None:
                raise ValueError("data.validation is a share of data.train, which names no file")
        return self

    @model_validator(mode="after")
    def _best_of_something(self) -> Data:
        if self.keep_best and self.validation is None:
            raise ValueError("keep_best goes by the loss on held-out data; name some as data.validation")
        if self.patience is not None and self.validation is None:
            raise ValueError("patience goes by the loss on held-out data; name some as data.validation")
        return self

    def entries(self, key: Literal["train", "validation"]) -> tuple[str | TrainFile, ...]:
        """The files that a key names; none where it names a share, or nothing."""
        given = self.train if key == "train" else self.validation
        if given is None or isinstance(given, float):
            return ()
        return given if isinstance(given, tuple) else (given,)

    @property
    def named_files(self) -> list[str]:
        """Every path or pattern that train and validation name."""
        files = (*self.entries("train"), *self.entries("validation"))
        return [file if isinstance(file, str) else file.path for file in files]
