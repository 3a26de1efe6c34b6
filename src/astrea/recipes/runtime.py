"""What a run is computed on, and how."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
    PositiveInt,
)

from astrea.common.devices import Device
from astrea.recipes.part import Part


class Runtime(Part):
    """What a run is computed on, and how. No part of what the run is: it may go on with other settings."""

    device: Device = Field(
        "auto", description="auto = a GPU for each process where there are any, otherwise the processor"
    )
    llm: Literal["replicated", "fsdp"] = Field(
        "replicated", description="fsdp = share out the blocks of a language model that learns (FSDP2)"
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="of the language model's computing; auto = bf16 on a GPU, fp32 on a processor"
    )
    compile: bool | Literal["auto"] = Field(
        False, description="compile the language model's blocks with torch.compile; auto = where a compiler works"
    )
    loaders: PositiveInt = Field(2, description="threads of each process that decode the pictures of one's own data")
    feature_cache_gb: float = Field(
        16.0,
        ge=0,
        le=1e6,
        description="GB (1e9 bytes) that the folder of cached features may take, those of drawn scenes and of one's "
        "own pictures together: what was used longest ago makes room; 0 = nothing is stored or read, experts encode "
        "every time",
    )
    tracker: tuple[Literal["jsonl", "tensorboard", "wandb", "trackio"], ...] = Field(
        ("jsonl",),
        description="where each step's figures go; jsonl, the run folder's train.jsonl, is always written, and the "
        "others are extras of the same names",
    )
    timeout: PositiveInt = Field(30, description="minutes until a process that does not answer is given up")
