"""The experts of a run."""

from __future__ import annotations

from typing import Any

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from astrea.common.devices import Device
from astrea.recipes.part import Part


class ExpertEntry(Part):
    """One expert: a built-in or registered kind, or "module:Class", and the options of its constructor; or, with
    ``checkpoint``, a kind of task and a transformers checkpoint that does it (see docs/experts.md)."""

    kind: str
    checkpoint: str | None = Field(None, description="a local folder, or a hub id (owner/name) with its revision")
    revision: str | None = Field(None, description="of a hub id: the commit, all 40 digits")
    architecture: dict[str, Any] | None = Field(
        None,
        description="what the checkpoint's config.json says, model_type included; what is left out is as transformers "
        "has it. Estimates then need no checkpoint, and without one the expert has random weights",
    )
    options: dict[str, Any] = {}
    frozen: bool = Field(False, description="stays as it is also where a stage trains `experts`")
    device: Device = Field("auto", description="where it looks in training; auto: as the rest")

    @model_serializer(mode="wrap")
    def _without_nothing(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What an entry says nothing about is not written, so that it compares with those from before there was more.
        usual = {"checkpoint": None, "revision": None, "architecture": None, "frozen": False, "device": "auto"}
        return {key: value for key, value in dump(self).items() if key not in usual or value != usual[key]}

    @model_validator(mode="after")
    def _revision_is_of_something(self) -> ExpertEntry:
        if self.revision is not None and self.checkpoint is None:
            raise ValueError(f"a revision {self.revision!r} without a checkpoint says nothing")
        return self
