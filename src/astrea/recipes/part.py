"""What every part of a recipe is built on."""

from __future__ import annotations

from pydantic import (
    BaseModel,
    ConfigDict,
)


class Part(BaseModel):
    """Base of every part of the configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
