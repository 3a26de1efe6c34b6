"""The command of the laboratory: arena. Named in `astrea.cli.table`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from astrea.common.lazy import LazyModule
from astrea.common.options import Overrides, RunFolder

if TYPE_CHECKING:
    from astrea.lab import actions as actions
else:
    actions = LazyModule("astrea.lab.actions")


def arena(
    overrides: Overrides = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="Recipe that all variants start from: a name or a YAML file. neutral: its language model has met none "
            "of the tasks; tiny: its language model was warmed up on them, as Astrea asks."
        ),
    ] = "neutral",
    strategies: Annotated[
        str | None,
        typer.Option(help="all, or variants and kinds (strategies, ablations, retraining, pairs), comma-separated."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many seeds each variant gets; 3, or 1 if quick.")
    ] = None,
    folder: RunFolder = Path("runs/arena"),
    processes: Annotated[int, typer.Option(min=1, help="Runs at a time, each on one core.")] = 2,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few small runs, about ten minutes: does it all work?")
    ] = False,
    wall: Annotated[
        bool, typer.Option("--wall", help="Afterwards run the three best others for as long as astrea took.")
    ] = False,
    trials: Annotated[
        bool,
        typer.Option(
            "--trials",
            help="Run the learning-rate sweep of the chosen strategies and nothing else: rates times 0.5, 1, 2 and 4, "
            "first seed only, scored on the validation split.",
        ),
    ] = False,
    on: Annotated[
        str, typer.Option("--on", help="test, or validation: what settings are chosen on. Its models are kept.")
    ] = "test",
    sealed: Annotated[
        int | None,
        typer.Option(
            "--sealed",
            min=0,
            help="Measure once on a test set that this seed draws. A seed that a result file names is refused.",
            metavar="SEED",
        ),
    ] = None,
    setting: Annotated[
        str | None,
        typer.Option(
            help="e1 (many experts, a budget), e2 (conflict and shift), e3 (high resolution) or e4 (no words given).",
            metavar="NAME",
        ),
    ] = None,
) -> None:
    """Compare Astrea with the other fusion strategies.

    And with itself when an ingredient is off.

    [bold]astrea arena --quick[/bold]
    [bold]astrea arena --strategies astrea,sequence_concat,ablations --seeds 3 tune.steps=200[/bold]

    [bold]astrea arena --on validation[/bold], then once [bold]--sealed 4711[/bold]  choose, then report

    Every finished run is a file; the same command goes on where it was.
    """
    actions.arena(
        recipe, overrides or [], folder, strategies=strategies, seeds=seeds, processes=processes, quick=quick,
        wall=wall, trials=trials, on=on, sealed=sealed, setting=setting,
    )  # fmt: skip
