"""What ``world.options`` may say of the photograph world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from astrea.common.errors import AstreaError

MOST_THINGS = 6


class PhotographOptions(BaseModel):
    """Cut-outs, and how they are put together. Shares lie between 0 and 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str | None = Field(
        None, min_length=1, description="cut-outs of your own; null = the Debian package tuxpaint-stamps-default"
    )
    backgrounds: str | None = Field(
        None, min_length=1, description="a folder of pictures; null = textures of scikit-image where it is installed"
    )
    held_out: int | tuple[str, ...] = Field(20, description="names never shown in training, or how many of them")
    max_things: int = Field(MOST_THINGS, ge=1, le=MOST_THINGS)
    smallest: float = Field(0.16, ge=0.05, le=0.9, description="side of the smallest thing as a share of the canvas")
    largest: float = Field(0.62, ge=0.05, le=0.9, description="side of the largest thing")
    overlap: float = Field(0.3, ge=0, le=1, description="share of the pictures in which things may cover others")
    recoloured: float = Field(0.35, ge=0, le=1, description="share of the things in a colour that is not theirs")
    signs: float = Field(0.4, ge=0, le=1, description="share of the pictures with a printed sign")

    @model_validator(mode="after")
    def _sizes_in_order(self) -> PhotographOptions:
        if self.smallest > self.largest:
            raise ValueError(f"smallest ({self.smallest}) is above largest ({self.largest})")
        if isinstance(self.held_out, int) and self.held_out < 0:
            raise ValueError("held_out is a number of names, or names")
        return self


def read_options(given: Mapping[str, Any]) -> PhotographOptions:
    """The options of a recipe.

    Raises:
        AstreaError: an unknown one, or a value that it does not take.
    """
    try:
        return PhotographOptions.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(("world.options", *map(str, first["loc"][:1])))
        raise AstreaError(
            f"{where}: {first['msg'].removeprefix('Value error, ')}",
            f"the photograph world's options are {', '.join(PhotographOptions.model_fields)}",
        ) from error
