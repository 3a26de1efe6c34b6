"""What a recipe may say of low-rank tuning."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class LowRank(BaseModel):
    """Low-rank tuning of the language model (LoRA): small adapters learn, the language model's own weights do not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(16, ge=1, le=1024)
    alpha: float = Field(32.0, gt=0, le=1e6, description="what the adapters say counts alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        "all-linear", description="every linear layer but the output's, or names of layers"
    )
    merge: bool = Field(True, description="merge the adapters into the finished model")

    @field_validator("targets")
    @classmethod
    def _are_names(cls, targets: str | tuple[str, ...]) -> str | tuple[str, ...]:
        # Plain names only: a pattern from somebody else's file could take for ever to match.
        bad = [name for name in targets if not re.fullmatch(r"\w{1,64}(\.\w{1,64}){0,15}", name, re.ASCII)]
        if not isinstance(targets, str) and (bad or not targets):
            raise ValueError(f"{bad[0]!r} is no name of a layer" if bad else "names no layer")
        return targets
