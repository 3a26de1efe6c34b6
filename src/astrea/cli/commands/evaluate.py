"""Commands that measure a model and show what was measured: evaluate, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from astrea.common.errors import AstreaError
from astrea.common.lazy import LazyModule
from astrea.common.options import AsJson, ModelFolder, OnDevice, Overrides, TrustRemoteCode
from astrea.common.paths import is_folder

if TYPE_CHECKING:
    from astrea.cli.actions import evaluate as actions
else:
    actions = LazyModule("astrea.cli.actions.evaluate")

WORLD = "The embedded world"
OWN = "Data of your own"


def evaluate(
    model: ModelFolder,
    overrides: Overrides = None,
    *,
    tasks: Annotated[str, typer.Option(help="Comma-separated tasks, or all.", rich_help_panel=WORLD)] = "all",
    masking: Annotated[
        bool, typer.Option("--masking/--no-masking", help="Also mask each expert in turn: what each contributes.")
    ] = False,
    split: Annotated[str, typer.Option(help="test or validation.", rich_help_panel=WORLD)] = "test",
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Recipe whose world and test sizes are used; the model's own by default.",
            show_default=False,
            rich_help_panel=WORLD,
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data file, or a pattern.", metavar="FILE", rich_help_panel=OWN)
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Where the pictures' paths start; left out: the file's folder.", rich_help_panel=OWN),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the first items of each file.", rich_help_panel=OWN)
    ] = None,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Questions at a time.", rich_help_panel=OWN)] = 16,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for results, answers and a report.", rich_help_panel=OWN)
    ] = None,
    as_json: AsJson = False,
    device: OnDevice = "auto",
    trust_remote_code: TrustRemoteCode = False,
    suite: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Evaluate a model on its recipe's tasks or on a data file.

    Given the folder of a run, its report is written again. Public data sets are for [bold]astrea benchmark[/bold].

    [bold]astrea evaluate runs/mine/model --data held-out.jsonl[/bold]  by kind of answer, beside blind answers
    [bold]astrea evaluate runs/mine[/bold]  what the run's recipe names
    [bold]astrea evaluate runs/quickstart/model --tasks counting,spatial[/bold]  tasks of the embedded world
    """
    refuse(suite is not None, "there are no suites any more", "public data sets: astrea benchmark MODEL --data DIR")
    asks_world = bool(overrides or split != "test" or recipe is not None or tasks != "all")
    if data is not None:
        refuse(is_folder(data), f"{data} is a folder", "give a data file; public data sets: astrea benchmark")
        world_options = "--tasks, --split, --recipe and KEY=VALUE"
        refuse(asks_world, f"{world_options} are for the embedded world", "leave them out with --data FILE")
        actions.evaluate_file(
            model, data, images=images, limit=limit, batch=batch, masking=masking, folder=folder, as_json=as_json,
            device=device, trust_remote_code=trust_remote_code,
        )  # fmt: skip
        return
    own_options = "--images, --limit and --out are for data of your own"
    refuse(images is not None or limit or folder, own_options, "add --data FILE")
    if not asks_world and not masking and actions.is_run(model):
        actions.evaluate_run(model, as_json=as_json, device=device, trust_remote_code=trust_remote_code)
        return
    actions.evaluate_world(
        model, tasks, masking=masking, split=split, recipe=recipe, overrides=overrides or [], as_json=as_json,
        device=device, trust_remote_code=trust_remote_code,
    )  # fmt: skip


def refuse(wrong: object, message: str, hint: str) -> None:
    """Options that do not go together are an error, before anything is loaded."""
    if wrong:
        raise AstreaError(message, hint)


def report(run: Annotated[Path, typer.Argument(help="Run folder, such as runs/quickstart.")]) -> None:
    """Write a run's report.html again from its results."""
    actions.report(run)
