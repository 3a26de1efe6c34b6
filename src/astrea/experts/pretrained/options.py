"""Options of checkpoint experts, per kind of task: those of the recipe and those that `entry` adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from astrea.common.errors import AstreaError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

MAX_VOCABULARY_BYTES = 16 << 20

Phrase = Annotated[str, Field(min_length=1, max_length=64)]
TokenId = Annotated[int, Field(ge=0)]


class Options(BaseModel):
    """Options of every kind. They come from a recipe or from a model folder that anybody may have made, so each has a
    limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    derived: ClassVar[frozenset[str]] = frozenset()
    """What `entry` finds out from the checkpoint; a recipe cannot give it."""

    tokens: int = Field(16, ge=1, le=1024, description="how many tokens the expert gives per picture")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="in which its weights compute")


class DetectionOptions(Options):
    """Boxes."""

    derived = frozenset({"prompt_ids", "spans"})

    threshold: float = Field(0.25, ge=0, lt=1, description="a box with a smaller score is an empty slot")
    phrases: tuple[Phrase, ...] = Field((), max_length=256, description="open-vocabulary detectors: what to look for")
    prompt_ids: tuple[TokenId, ...] = Field((), max_length=1024, description="the phrases as the detector reads them")
    spans: tuple[tuple[TokenId, TokenId], ...] = Field((), max_length=256, description="where each stands in it")


class RegionOptions(Options):
    """Segments."""

    threshold: float = Field(0.25, ge=0, lt=1, description="a region with a smaller score is an empty slot")


class GridOptions(Options):
    """Features on a grid of g x g cells."""

    layer: int | None = Field(None, ge=-256, le=256, description="hidden state that is read, as a Python index")


class TagOptions(GridOptions):
    """Tags of the whole picture, and features on a grid."""

    tokens: int = Field(17, ge=2, le=1024, description="one with tags, and g x g of a grid")
    top: int = Field(10, ge=1, le=1000, description="how many tags keep their probability")
    phrases: tuple[Phrase, ...] = Field((), max_length=1000, description="zero-shot tags")
    prompt: str = Field(
        "a photo of {}.", max_length=256, description="the text that the text tower encodes for each phrase"
    )


class CaptionOptions(Options):
    """A sentence."""

    derived = frozenset({"prompt_ids", "vocabulary_bytes", "start_id", "end_ids", "forced_id", "no_repeat"})

    prompt: str | None = Field(None, max_length=256, description="what the captioner is asked, or goes on from")
    prompt_ids: tuple[TokenId, ...] = Field((), max_length=1024, description="the same as it reads it")
    vocabulary_bytes: int = Field(2, ge=2, le=MAX_VOCABULARY_BYTES, description="size of the words kept as a buffer")
    start_id: TokenId | None = None
    end_ids: tuple[TokenId, ...] = Field((), max_length=16, description="tokens that end a sentence or are no word")
    forced_id: TokenId | None = Field(None, description="token that every sentence must begin with")
    no_repeat: int = Field(0, ge=0, le=16, description="no run of so many tokens twice; 0 = any")


class RecipeOptions(BaseModel):
    """What a recipe may say of any checkpoint besides the options of its kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int | None = Field(None, ge=16, le=4096, description="side of the picture that the checkpoint is given")


Chosen = TypeVar("Chosen", bound=BaseModel)


def checked(kind: type[Chosen], options: Mapping[str, Any]) -> Chosen:
    """The options as their kind has them.

    Raises:
        AstreaError: an option is unknown or out of range; names it and lists the known ones.
    """
    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        known = ", ".join(name for name in kind.model_fields)
        raise AstreaError(f"option {where!r}: {first['msg']}", f"options of this expert: {known}") from error
