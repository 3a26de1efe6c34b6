"""Stages of training: what learns, from which losses, and how long and fast."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from astrea.common.registry import Registry
from astrea.recipes.part import BadKey, Part


class Schedule(Part):
    """How long and how fast something learns: AdamW, linear warm-up, then cosine to ``final`` x lr, clipped gradients.

    batch: samples per micro-step; accumulate: micro-steps per optimizer step; all other counts are optimizer steps.
    """

    steps: int = Field(ge=0)
    batch: PositiveInt = 16
    lr: float = Field(gt=0)
    warmup: int = Field(20, ge=1)
    final: float = Field(0.05, ge=0, le=1)
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(1.0, gt=0)
    accumulate: PositiveInt = 1
    save_every: int = Field(0, ge=0, description="optimizer steps between checkpoints; 0 = at the stage's end only")
    muon: float = Field(0.0, ge=0, description="learning rate of hidden matrices over lr, by Muon; 0 = AdamW")

    def lr_at(self, step: int) -> float:
        """Learning rate of optimizer step ``step`` (0-based)."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))

    def lasting(self, steps: int) -> Self:
        """The same for another number of steps."""
        return self.model_copy(update={"steps": steps})


LOSSES = Registry("loss", {}, "astrea.losses")
"""Losses of other packages; `astrea.training.losses.registry` has the built-in ones of each kind of stage."""


class Losses(Part):
    """Weights of a stage's losses; 0 = off. Losses of other packages are named by entry point or as "module:Class"."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Annotated[float, Field(ge=0)]]

    lm: float = Field(0.0, ge=0)
    word: float = Field(0.0, ge=0)
    caption_words: float = Field(
        0.0,
        ge=0,
        description="whole words of captions against tokens of features; no pass of the language model. In fuse and "
        "tune features stay near their words",
    )
    itc: float = Field(0.0, ge=0)
    agree: float = Field(0.0, ge=0, description="lambda: contrast with the experts already aligned")
    contribution: float = Field(0.0, ge=0)
    reliability: float = Field(0.0, ge=0, description="telling corrupted experts from reliable ones")

    @model_serializer(mode="wrap")
    def _without_nothing(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Not where it is off, so that runs from before there was one still compare.
        return {key: value for key, value in dump(self).items() if key != "caption_words" or value}

    @property
    def weights(self) -> dict[str, float]:
        """The weight of every loss by its name."""
        return self.model_dump()

    @model_validator(mode="after")
    def _are_known(self) -> Self:
        named = [name for name in self.__pydantic_extra__ or {} if ":" not in name]
        registered = LOSSES.known() if named else []
        if unknown := [name for name in named if name not in registered]:
            known = ", ".join([*type(self).model_fields, *sorted(registered)])
            raise ValueError(f'unknown loss {unknown[0]!r}; known: {known}; or write "module:Class"')
        return self


class Stage(Schedule):
    """One stage as data: what learns, from which losses, for how long."""

    train: tuple[Literal["adapters", "heads", "fusion", "language_model", "experts"], ...]
    losses: Losses
    llm_lr_scale: float = Field(1.0, gt=0)
    experts_lr_scale: float = Field(0.1, gt=0, description="of the experts, where they learn, over lr")
    save_every: int = Field(200, ge=0, description="optimizer steps between checkpoints; 0 = at the stage's end only")
    muon: float = Field(
        3.0, ge=0, description="learning rate of the language model's hidden matrices over lr, by Muon; 0 = AdamW"
    )

    OTHERS: ClassVar[tuple[str, ...]] = ("word", "agree")
    """Losses of other stages."""

    @model_validator(mode="after")
    def _losses_are_read(self) -> Self:
        for name in self.OTHERS:
            if getattr(self.losses, name):
                raise BadKey(("losses", name), "no loss of this stage; give it no weight")
        return self


class AlignStage(Stage):
    """The first stage, which brings every expert's tokens into the language model's space."""

    OTHERS: ClassVar[tuple[str, ...]] = ("lm", "contribution", "reliability")

    progressive: bool = Field(
        True, description="by contrast: one expert after another, as the paper does it; false = all at once"
    )
    kind: Literal["contrast", "next_token"] = Field(
        "contrast",
        description="next_token trains each adapter alone on the answers of the frozen language model, as Eagle does, "
        "one after another; that is its only loss",
    )

    @model_validator(mode="after")
    def _experts_stay_as_they_are(self) -> Self:
        if "experts" in self.train:
            raise ValueError("align.train: experts are aligned as they are; let them learn in fuse.train or tune.train")
        return self

    @model_validator(mode="after")
    def _next_token_is_all(self) -> Self:
        if self.kind == "next_token":
            named = [name for name, weight in self.losses.weights.items() if weight]
            if named:
                raise ValueError(
                    f"next_token is the only loss then, and losses.{named[0]} is not read; say losses: {{}}"
                )
            if not self.progressive:
                raise ValueError("next_token takes one expert after another, whatever `progressive` says; leave it out")
        return self
