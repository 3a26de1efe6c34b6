"""Starts one run per moment in ``POINTS`` and kills it there with SIGKILL; a script of its own, for test_trainer.py.

    python killed_runs.py RECIPE FOLDER

Every run is a fork of this process, so that the library is imported once. Prints {moment: signal that ended it}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from astrea.common.progress import Reporter
from astrea.model.processing import AstreaProcessor
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training import checkpoint, stage_runner
from astrea.training import trainer as run
from astrea.training.log import TrainLog
from astrea.training.stages.instruct import InstructObjective


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill(owner: Any, name: str, when: Callable[..., bool], *, after: bool = False) -> None:
    """Die before (or after) the first call of ``owner.name`` for whose arguments ``when`` is true."""
    original = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        now = when(*args, **kwargs)
        if now and not after:
            die()
        result = original(*args, **kwargs)
        if now:
            die()
        return result

    setattr(owner, name, wrapped)


class Count:
    """True at the ``number``-th call."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, *args: Any, **kwargs: Any) -> bool:
        self.left -= 1
        return self.left == 0


def at_step(number: int) -> Callable[..., bool]:
    return lambda *args, **kwargs: args[1] == number


# The run: align has 3 phases of 2 steps, fuse is steps 7 and 8 with two micro-steps each, tune 9 to 12; saves at
# 2, 4, 6, 8, 10, 12.
POINTS: dict[str, Callable[[], None]] = {
    "before the first save": lambda: kill(TrainLog, "write", at_step(1), after=True),
    "between two saves": lambda: kill(TrainLog, "write", at_step(11), after=True),
    "in mid-accumulation": lambda: kill(InstructObjective, "loss", Count(4)),
    "at the end of a stage, unsaved": lambda: kill(stage_runner, "save_checkpoint", at_step(8)),
    "between two stages": lambda: kill(stage_runner, "save_checkpoint", at_step(8), after=True),
    "in mid-save, half the files": lambda: kill(checkpoint, "_write_tensors", Count(5 * 4 + 3)),
    "in mid-save, before the rename": lambda: kill(Path, "rename", lambda path, to: Path(to).name == "step-00000010"),
    "in mid-save, after the rename": lambda: kill(
        Path, "rename", lambda path, to: Path(to).name == "step-00000010", after=True
    ),
    "while writing the model": lambda: kill(AstreaProcessor, "save_pretrained", Count(1)),
}


def main(recipe: str, folder: str) -> None:
    ends = {}
    for number, (name, arm) in enumerate(POINTS.items()):
        child = os.fork()
        if child == 0:
            arm()
            run.train(load_recipe(Recipe, recipe), Path(folder) / str(number), report=Reporter())
            os._exit(0)
        _, status = os.waitpid(child, 0)
        ends[name] = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    print(json.dumps(ends))


if __name__ == "__main__":
    main(*sys.argv[1:])
