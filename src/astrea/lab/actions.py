"""What the command of the laboratory does."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from astrea.common.errors import AstreaError
from astrea.common.output import out, print_path
from astrea.common.paths import is_file
from astrea.common.progress import TerminalReporter
from astrea.lab.arena import arena as arena_run
from astrea.lab.arena.sealed import TEST, VALIDATION, TestSet
from astrea.lab.arena.table import arena_table, lr_sweep_table
from astrea.lab.settings.settings import setting_named


def arena(
    recipe: str,
    overrides: Sequence[str],
    folder: Path,
    *,
    strategies: str | None,
    seeds: int | None,
    processes: int,
    quick: bool,
    wall: bool,
    trials: bool,
    on: str,
    sealed: int | None,
    setting: str | None,
) -> None:
    """Run an arena, or go on with it, and print its table."""
    if on not in (TEST, VALIDATION):
        raise AstreaError(f"--on {on}: there is no such split to measure on", f"known: {TEST}, {VALIDATION}")
    if sealed is not None and on != TEST:
        raise AstreaError("--sealed draws a test set, so not --on validation", "run one after the other")
    test = TestSet(on, sealed)
    where = None if setting is None else setting_named(setting)
    asked = arena_run.Arena(
        recipe,
        (*(arena_run.QUICK_OVERRIDES if quick else ()), *overrides),
        strategies or (where.wanted if where is not None else arena_run.QUICK if quick else "all"),
        seeds or (1 if quick else 3),
        folder,
        processes,
        equal_time=wall,
        command=shlex.join(["astrea", *sys.argv[1:]]),
        lr_sweep=trials,
        test=test,
        setting=where,
    )
    with TerminalReporter() as report:
        try:
            made, failed = arena_run.run_arena(asked, report=report)
        except KeyboardInterrupt:
            report.say("stopped; finished runs are kept, go on with the same command")
            raise typer.Exit(130) from None
    out.print(lr_sweep_table(made) if trials else arena_table(made))
    for what, path in (("figures", folder / f"{test.name}.json"), ("page", folder / f"{test.name}.html")):
        if is_file(path):
            print_path(what, path)
    if failed:
        errors = "\n".join(f"{name}: {error}" for name, error in failed.items())
        raise AstreaError(f"{len(failed)} failed:\n{errors}", "correct these; the same command goes on")
