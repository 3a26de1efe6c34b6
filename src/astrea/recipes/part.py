"""What every part of a recipe is built on."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Base of every part of the configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BadKey(ValueError):
    """What is wrong with one key of a part, or of a part below it.

    trail: the key, as seen from the part whose validator raises this.
    """

    def __init__(self, trail: tuple[str, ...], said: str) -> None:
        super().__init__(said)
        self.trail = trail
