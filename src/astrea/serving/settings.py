"""What one server is told at its start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from astrea.serving.limits import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to serve a model.

    name: what clients call the model. key: what every request must bring, or None.
    hosts: the names under which the server may be addressed, or None for any; without a key, a page of somebody else's
    could otherwise have a browser ask this machine's server under a name of its own.
    skip_below: experts whose gate weight is expected to be lower are not run, see `ExpectedWeights`; 0 = all are.
    skip_sure: the least probability of an answer's first token without the experts that were skipped, see `Engine`.
    expert_process: whether experts compute in a process of their own, see `placed`. engine_process: whether the model
    does, apart from HTTP, see `placed_engine`.
    example: a PNG file that the page offers, or None.
    index: an index of pictures, or a folder with one in it, that clients may search and see; or None.
    trace: a JSONL file that gets a line per request, or None.
    """

    name: str
    key: str | None = None
    hosts: frozenset[str] | None = None
    skip_below: float | Mapping[str, float] = 0.0
    skip_sure: float = 0.0
    expert_process: bool | None = False
    engine_process: bool | None = False
    example: Path | None = None
    index: Path | None = None
    trace: Path | None = None
    limits: Limits = field(default_factory=Limits)
