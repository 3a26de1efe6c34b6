"""Where a run's figures also go besides ``train.jsonl``: TensorBoard, Weights & Biases, Trackio; each is an extra.

Which of them is the recipe's `runtime.tracker`. They are told of the same figures after every step, on the process that
writes. A run that goes on is the same run there, and starts again behind the step it goes on from.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from astrea.common.installation import import_extra, require_extra

PROJECT = "astrea"
"""What runs are filed under, unless the tracker's own environment (WANDB_PROJECT, say) names another project."""

OTHERWISE = "or leave it out of runtime.tracker"


class Tracker(ABC):
    """Takes a run's figures. Built when the first of them come, from what its constructor names."""

    @abstractmethod
    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], first_step: int) -> None:
        """folder: the run's. name, settings: what the run is shown as. first_step: the step that comes next."""

    @abstractmethod
    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of an optimizer step, counted over the whole run from 1."""

    @abstractmethod
    def close(self) -> None:
        """Everything is written."""


class TensorBoard(Tracker):
    """Event files under ``folder/tensorboard``."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], first_step: int) -> None:
        module = import_extra("torch.utils.tensorboard", "tensorboard", "TensorBoard logging", OTHERWISE)
        # purge_step makes TensorBoard forget what a run that was cut off had written from there on.
        self.writer = module.SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases(Tracker):
    """A run of wandb, its files under ``folder/wandb``; whether it is sent anywhere is up to WANDB_MODE."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], first_step: int) -> None:
        wandb = import_extra("wandb", "wandb", "logging to Weights & Biases", OTHERWISE)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=name,
            id=run_id(folder),
            dir=str(folder),
            config=dict(settings),
            resume="allow",
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self.run.log(dict(figures), step=step)

    def close(self) -> None:
        self.run.finish()


class Trackio(Tracker):
    """A run of Trackio, which keeps it on this machine (TRACKIO_DIR says where)."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any], first_step: int) -> None:
        self.trackio = import_extra("trackio", "trackio", "logging to Trackio", OTHERWISE)
        self.trackio.init(
            project=PROJECT, name=f"{name}-{run_id(folder)}", config=dict(settings), resume="allow", embed=False
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self.trackio.log(dict(figures), step=step)

    def close(self) -> None:
        self.trackio.finish()


TRACKERS: Mapping[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "trackio": Trackio}
"""By the name that recipes and extras use. ``jsonl``, the log that the report reads, is always written."""


def installed(names: Iterable[str]) -> list[str]:
    """Those of the names that `TRACKERS` has; "jsonl" is none of them.

    Raises:
        AstreaError: the library of one is not installed.
    """
    wanted = [name for name in names if name in TRACKERS]
    for name in wanted:
        require_extra(name, f"the tracker {name}", OTHERWISE)
    return wanted


def run_id(folder: Path) -> str:
    """The same for a run that goes on, another for every folder: eight letters."""
    return hashlib.sha256(str(Path(folder).resolve()).encode()).hexdigest()[:8]
