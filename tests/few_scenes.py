"""Evaluations of seconds: fewer scenes where their number is fixed."""

from __future__ import annotations

import pytest

from astrea.world.evaluation import runner, tasks


def limit_scenes(patch: pytest.MonkeyPatch, judged: int = 20) -> None:
    """Judge the experts on so many scenes instead of 300, and count the most frequent answers of 60 instead of 600."""
    whole = runner.scenes_of
    patch.setattr(runner, "scenes_of", lambda split, count, world: whole(split, min(count, judged), world))
    patch.setattr(
        tasks,
        "scenes_of",
        lambda split, count, world: whole(split, min(count, 60) if split == "train" else count, world),
    )
