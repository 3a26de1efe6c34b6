"""Records of runs that never were."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pytest

from astrea.lab.arena.pool import Pool
from astrea.lab.arena.run import SCHEMA, Run, packed_items, unpacked_items
from astrea.world.evaluation.tasks import TASKS
from listening import Said

if TYPE_CHECKING:
    from command_line import Astrea

SHORT = ("align.steps=5", "fuse.steps=2", "tune.steps=4", "data.train_scenes=20")
"""Even less than the small overrides."""


Command: TypeAlias = Callable[..., tuple[int, str]]


@pytest.fixture
def command(astrea: Astrea) -> Command:
    """Runs `astrea arena` in this process: its exit status, and all that it said."""

    def run(*arguments: object) -> tuple[int, str]:
        result = astrea("arena", *arguments)
        return result.code, result.out + result.err

    return run


@pytest.fixture
def said() -> Said:
    return Said()


def record(
    name: str = "astrea",
    *,
    kind: str = "strategy",
    seed: int = 0,
    items: Mapping[str, list[float]] | float = 0.5,
    wall_s: float = 100.0,
    **more: Any,
) -> dict[str, Any]:
    """A run's file; ``items`` per task, or the share of ten items that is right on every task."""
    if not isinstance(items, Mapping):
        items = dict.fromkeys(TASKS, [1.0] * round(10 * items) + [0.0] * round(10 * (1 - items)))
    packed = {task: packed_items(task, np.array(items[task])) for task in TASKS}
    tasks = {task: 100 * float(unpacked_items(packed[task]).mean()) for task in TASKS}
    made = {
        "schema": SCHEMA,
        "name": name,
        "kind": kind,
        "seed": seed,
        "note": f"about {name}",
        "overrides": [],
        "digest": "d",
        "average": float(np.mean(list(tasks.values()))),
        "tasks": tasks,
        "items": packed,
        "conditions": {"clean": 50.0 + seed, "night": None},
        "shares": {"caption": {"clean": {"detection": 0.25 * (seed + 1)}}},
        "load": {"mean": {"detection": 0.25}, "cv": 0.1 * (seed + 1), "max_over_mean": 1.5, "entropy": 0.9},
        "params_trainable": 10,
        "params_total": 20,
        "visual_tokens": 4,
        "steps": 30,
        "tune_steps": 20,
        "flops_per_sample": 1000,
        "flops_experts": 500,
        "latency_ms": 2.0 + seed,
        "seconds": {"features": 7.0, "align": wall_s - 40, "tune": 40.0},
        "wall_s": wall_s,
        "curve": [],
        "probes": None,
        "machine": {"cores": 2},
        "commit": "abc",
    }
    return made | more


@pytest.fixture
def make_record() -> Callable[..., dict[str, Any]]:
    return record


@pytest.fixture
def pretended(make_record, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are written at once, as if the runs had been executed."""

    def run(self: Pool, runs: Sequence[Run]) -> None:
        for run in runs:
            self.path(run).parent.mkdir(parents=True, exist_ok=True)
            who = run.variant
            made = make_record(
                who.name,
                kind=who.kind,
                seed=run.seed,
                wall_s=100.0 if who.name == "astrea" else 60.0,
                overrides=list(who.overrides),
                digest=run.digest(),
            )
            self.path(run).write_text(json.dumps(made))

    monkeypatch.setattr(Pool, "run", run)


@pytest.fixture(scope="session")
def base(small_overrides: list[str]) -> tuple[str, ...]:
    """Base overrides of an arena whose runs take seconds."""
    return (*small_overrides, *SHORT)
