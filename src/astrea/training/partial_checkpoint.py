"""Where a student's teaching was stopped: everything that its next step needs, kept until it is taught."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from astrea.common.errors import AstreaError
from astrea.common.progress import Reporter
from astrea.training.checkpoint import flatten_optimizer, load_checkpoint, restore_optimizer, save_checkpoint

FOLDER = "partial"


class PartialCheckpoint:
    """A checkpoint of teaching, in a folder of its own.

    Batches are a function of seed and step, and nothing else in a step is random, so weights, buffers and optimizer are
    all there is to keep.

    Args:
        folder: the student's.
        origin: from what it is taught; what was kept of another origin is of no use.
    """

    def __init__(self, folder: Path, origin: Mapping[str, Any]) -> None:
        self.folder = folder / FOLDER
        self.digest = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()

    def save(self, learning: nn.Module, optimizer: torch.optim.AdamW, step: int, seconds: float) -> None:
        """Keep what the next step, number ``step``, needs, and the seconds that all steps before it took.

        Raises:
            AstreaError: it cannot be written.
        """
        tensors, groups = flatten_optimizer(optimizer)
        kept = {"learning": learning.state_dict(), "optimizer": tensors}
        save_checkpoint(self.folder, step, kept, {"optimizer": groups, "seconds": seconds}, config_hash=self.digest)

    def restore(
        self, learning: nn.Module, optimizer: torch.optim.AdamW, steps: int, report: Reporter
    ) -> tuple[int, float]:
        """Fill both with what was kept, if anything was, and return the step to go on with and the seconds spent;
        (0, 0.0) and neither touched where there is nothing, or nothing that is of use, which is said."""
        try:
            found = load_checkpoint(self.folder, config_hash=self.digest, on_warning=report.say)
            if found is None:
                return 0, 0.0
            kept, own = found.tensors.get("learning", {}), learning.state_dict()
            seconds = found.state.get("seconds")
            if shapes_of(kept) != shapes_of(own):
                raise AstreaError(f"{found.path} is of another student")
            if not 0 < found.step < steps or not isinstance(seconds, float):
                raise AstreaError(f"{found.path} is of another schedule")
            restore_optimizer(optimizer, found.tensors.get("optimizer", {}), found.state.get("optimizer", {}))
        except AstreaError as error:
            report.say(f"the student cannot be taught on from where it was ({error.message}); it is taught anew")
            self.remove()
            return 0, 0.0
        learning.load_state_dict(kept)
        report.say(f"teaching goes on from step {found.step}")
        return found.step, seconds

    def remove(self) -> None:
        """Forget what was kept."""
        shutil.rmtree(self.folder, ignore_errors=True)


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """The shape of every tensor."""
    return {name: tensor.shape for name, tensor in tensors.items()}
