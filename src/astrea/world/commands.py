"""Commands of the embedded world: pretrain, scenes, pack. Named in `astrea.cli.table`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from astrea.common.lazy import LazyModule
from astrea.common.options import Overrides, RunFolder

if TYPE_CHECKING:
    from astrea.world import actions as actions
else:
    actions = LazyModule("astrea.world.actions")


def pretrain(
    recipe: Annotated[str, typer.Argument(help="Recipe whose parts are made.")] = "tiny",
    overrides: Overrides = None,
    folder: RunFolder = Path("runs/parts"),
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Only this part (repeat for more); for parallel runs.")
    ] = None,
    shipped_experts: Annotated[
        bool,
        typer.Option(
            "--shipped-experts", help="Copy the package's experts instead of training them: a new language model alone."
        ),
    ] = False,
    shipped_language: Annotated[
        bool,
        typer.Option("--shipped-language", help="Copy the package's language model instead of training one."),
    ] = False,
) -> None:
    """Train the compact experts and the language model of a recipe.

    Only those that the recipe uses; what it takes from checkpoints of others is not trained.
    """
    copied = {"experts": shipped_experts, "language": shipped_language}
    actions.pretrain(recipe, overrides or [], folder, only=only, shipped=[name for name in copied if copied[name]])


def scenes(
    show: Annotated[
        Path | None, typer.Option("--show", help="Write a contact sheet here; scenes.png without --out.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Write each picture here, with questions and answers.", metavar="DIR")
    ] = None,
    split: Annotated[
        str, typer.Option(help="train, validation, test or novel; of photographs also new (things never trained on).")
    ] = "train",
    count: Annotated[int, typer.Option(min=1, max=400, help="How many scenes.")] = 32,
    seed: Annotated[int, typer.Option(help="The world's seed.")] = 0,
    canvas: Annotated[
        int | None,
        typer.Option(min=48, max=512, help="Side of a picture in pixels; by default 64, of photographs 320."),
    ] = None,
    difficulty: Annotated[
        float | None, typer.Option(min=0, max=1, help="Of drawn scenes: how strong night, blur, noise, clutter are.")
    ] = None,
    world: Annotated[str, typer.Option(help="drawn or photographs.")] = "drawn",
    cut_outs: Annotated[
        Path | None,
        typer.Option("--cut-outs", help="Of photographs: a folder of cut-outs with captions.", metavar="DIR"),
    ] = None,
) -> None:
    """Show scenes of an embedded world.

    As a contact sheet to look at, or as pictures to ask about.

    [bold]astrea scenes --show scenes.png[/bold]  a contact sheet
    [bold]astrea scenes --out pictures --split test[/bold]  single pictures, and questions.jsonl with true answers
    [bold]astrea scenes --world photographs[/bold]  photographs of things, put together
    """
    if show is None and folder is None:
        show = Path("scenes.png")
    actions.scenes(
        show, folder, split=split, count=count, kind=world, seed=seed, canvas=canvas, difficulty=difficulty,
        cut_outs=cut_outs,
    )  # fmt: skip


def pack(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, such as runs/quickstart.", metavar="RUN")],
    folder: Annotated[Path, typer.Option("--out", help="Folder to write; new or empty.", metavar="FOLDER")],
) -> None:
    """Write a run's model without what packages have.

    In fp16, small enough to send, or to come with this one. Of the drawn world, all but the experts, which this
    package has: src/astrea/world/weights/model is such a folder. With a language model from a package (recipe
    photo), only what was learned, low-rank adapters unmerged; it is a model folder as any other. The one in
    src/astrea/world/photographs/model is what "shipped-photo" names.
    """
    actions.pack(run, folder)
