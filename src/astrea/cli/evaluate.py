"""Commands that measure and show: evaluate, report, arena, scenes, pack."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from astrea.cli.app import (
    AsJson,
    ModelFolder,
    OnDevice,
    Overrides,
    RunFolder,
    Trust,
    app,
    out,
    print_path,
    save_picture,
)
from astrea.common.errors import AstreaError
from astrea.common.paths import is_file, is_folder


@app.command()
def evaluate(
    model: ModelFolder,
    tasks: Annotated[str, typer.Option(help="Comma-separated tasks, or all.")] = "all",
    suite: Annotated[
        str, typer.Option(help="world: the embedded world; public: data sets you have; --data FILE: your own.")
    ] = "world",
    masking: Annotated[bool, typer.Option("--masking/--no-masking", help="Also mask each expert in turn.")] = False,
    split: Annotated[str, typer.Option(help="test or validation.")] = "test",
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Recipe whose world and test sizes are used; the model's own by default.", show_default=False
        ),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    device: OnDevice = "auto",
    trust_remote_code: Trust = False,
    data: Annotated[
        str | None,
        typer.Option(help="Data file of your own, or a pattern; public: folder of the official files.", metavar="PATH"),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Own data: where the pictures' paths start; left out: the file's folder.")
    ] = None,
    mode: Annotated[str, typer.Option(help="Public: official, or normalised as most harnesses do.")] = "official",
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Public, own data: only the first items of each file.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder to write; public: runs/public by default.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Public: score what an earlier --out kept; MODEL is not loaded.")
    ] = None,
    rerank: Annotated[int, typer.Option(min=0, metavar="K", help="Public: rank the best K again by likelihood.")] = 0,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Public, own data: questions at a time.")] = 16,
) -> None:
    """Evaluate a model on the twelve tasks of the embedded world, on public data sets, or on data of your own.

    [bold]astrea evaluate runs/mine/model --data held-out.jsonl[/bold]  by kind of answer, beside blind answers
    [bold]astrea evaluate runs/mine[/bold]  what the run's recipe names; writes its report anew
    [bold]astrea evaluate runs/quickstart/model --tasks counting,spatial[/bold]
    [bold]astrea evaluate MODEL --suite public --data DIR --tasks gqa,pope[/bold]
    """
    from astrea.cli.evaluations import evaluate_file, evaluate_public_sets, evaluate_run, evaluate_world, is_run, show

    run = model if is_run(model) else None
    model = model if run is None else run / "model"
    asks_world = bool(overrides or masking or split != "test" or recipe is not None)
    where: dict[str, Any] = {"device": device, "trust_remote_code": trust_remote_code}
    if suite == "world" and data is not None and not is_folder(data):
        refuse(
            asks_world or tasks != "all" or predictions or rerank,
            "--tasks, --masking, --split, --recipe, --predictions, --rerank and KEY=VALUE are not for own data",
            "leave them out with --data FILE",
        )
        results = evaluate_file(model, data, images=images, limit=limit, folder=folder, batch=batch, **where)
        show(results, folder, as_json=as_json)
        return
    refuse(images is not None, "--images is for data of one's own", "add --data FILE")
    if suite == "public":
        told = "--masking, --split, --recipe and KEY=VALUE are for the embedded world"
        refuse(asks_world, told, "leave them out with --suite public")
        evaluate_public_sets(
            model, as_json=as_json, data=data, tasks=tasks, mode=mode, limit=limit, out=folder,
            predictions=predictions, rerank=rerank, batch=batch, **where,
        )  # fmt: skip
        return
    refuse(suite != "world", f"unknown suite {suite!r}", "choose world or public")
    told = "--data DIR, --out, --predictions, --limit and --rerank are for the public tasks"
    refuse(data or folder or predictions or limit or rerank, told, "add --suite public")
    if run is not None and tasks == "all" and not asks_world:
        show(evaluate_run(run, **where), run, as_json=as_json)
        return
    results = evaluate_world(
        model, tasks, masking=masking, split=split, recipe=recipe, overrides=overrides or [], **where
    )
    show(results, None, as_json=as_json)


def refuse(wrong: object, told: str, hint: str) -> None:
    """Options that do not go together are an error, before anything is loaded."""
    if wrong:
        raise AstreaError(told, hint)


@app.command()
def arena(
    overrides: Overrides = None,
    recipe: Annotated[
        str, typer.Option(help="Recipe that all contestants start from: a name or a YAML file.")
    ] = "tiny",
    strategies: Annotated[
        str | None,
        typer.Option(help="all, or contestants and kinds (strategies, ablations, retraining, pairs), comma-separated."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many seeds each contestant gets; 3, or 1 if quick.")
    ] = None,
    folder: RunFolder = Path("runs/arena"),
    processes: Annotated[int, typer.Option(min=1, help="Cells at a time, each on one core.")] = 2,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few small cells, about ten minutes: does it all work?")
    ] = False,
    wall: Annotated[
        bool, typer.Option("--wall", help="Afterwards run the three best others for as long as astrea took.")
    ] = False,
    trials: Annotated[
        bool,
        typer.Option(
            "--trials",
            help="Run the trials of the chosen strategies and nothing else: learning rates times 0.5, 1, 2 and 4, "
            "first seed only, scored on the validation split.",
        ),
    ] = False,
) -> None:
    """Compare Astrea with every other way to fuse, and with itself when an ingredient is off.

    [bold]astrea arena --quick[/bold]
    [bold]astrea arena --strategies astrea,sequence_concat,ablations --seeds 3 tune.steps=200[/bold]

    Every finished contestant and seed is a file; the same command goes on where it was.
    """
    import shlex

    from astrea.common.progress import TerminalReporter
    from astrea.lab.arena.arena import QUICK, QUICK_OVERRIDES, Arena, run_arena
    from astrea.lab.arena.table import arena_table, trials_table

    asked = Arena(
        recipe,
        (*(QUICK_OVERRIDES if quick else ()), *(overrides or [])),
        strategies or (QUICK if quick else "all"),
        seeds or (1 if quick else 3),
        folder,
        processes,
        wall,
        shlex.join(["astrea", *sys.argv[1:]]),
        trials,
    )
    with TerminalReporter() as report:
        try:
            made, failed = run_arena(asked, report=report)
        except KeyboardInterrupt:
            report.say("stopped; finished cells are kept, go on with the same command")
            raise typer.Exit(130) from None
    out.print(trials_table(made) if trials else arena_table(made))
    print_path("figures", folder / "arena.json")
    if is_file(folder / "arena.html"):
        print_path("page", folder / "arena.html")
    if failed:
        told = "\n".join(f"{name}: {said}" for name, said in failed.items())
        raise AstreaError(f"{len(failed)} failed:\n{told}", "correct these; the same command runs only what is missing")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Run folder, such as runs/quickstart.")]) -> None:
    """Write a run's report.html again from its results."""
    from astrea.report.page import write_report

    print_path("report", write_report(run))


@app.command()
def scenes(
    show: Annotated[
        Path | None, typer.Option("--show", help="Write a contact sheet here; scenes.png without --out.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Write each picture here, with questions and answers.", metavar="DIR")
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation, test or novel.")] = "train",
    count: Annotated[int, typer.Option(min=1, max=400, help="How many scenes.")] = 32,
    seed: Annotated[int, typer.Option(help="The world's seed.")] = 0,
    canvas: Annotated[int, typer.Option(min=48, max=512, help="Side of a picture in pixels.")] = 64,
    difficulty: Annotated[float, typer.Option(min=0, max=1, help="How strong night, blur, noise, clutter are.")] = 0.5,
) -> None:
    """Draw scenes of the embedded world: a contact sheet to look at, or pictures to ask about.

    [bold]astrea scenes --show scenes.png[/bold]  a contact sheet
    [bold]astrea scenes --out pictures --split test[/bold]  single pictures, and questions.jsonl with true answers
    """
    from astrea.world.scenes.draw import SPLITS, split_scene
    from astrea.world.scenes.folder import QUESTIONS, write_scenes
    from astrea.world.scenes.sheet import contact_sheet

    if split not in SPLITS:
        raise AstreaError(f"unknown split {split!r}", f"choose one of {', '.join(SPLITS)}")
    drawn = [split_scene(split, i, seed, canvas=canvas, difficulty=difficulty) for i in range(count)]
    if folder is not None:
        asked = write_scenes(drawn, folder, seed)
        print_path("pictures", folder)
        print_path(f"{asked} questions", folder / QUESTIONS)
    if show is not None or folder is None:
        show = show or Path("scenes.png")
        save_picture(contact_sheet(drawn), show)
        print_path(f"{count} scenes", show)


@app.command()
def pack(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, such as runs/quickstart.", metavar="RUN")],
    folder: Annotated[Path, typer.Option("--out", help="Folder to write; new or empty.", metavar="FOLDER")],
) -> None:
    """For developers: pack a finished run's model as the one that ships inside the package.

    Small: fp16, and without the experts, which ship as parts. Put what it writes into src/astrea/world/weights/model.
    """
    from astrea.common.progress import TerminalReporter
    from astrea.common.provenance import commit
    from astrea.world.bundled import pack as pack_run

    with TerminalReporter() as report:
        card = pack_run(run, folder, commit=commit(), report=report)
    whole, subset = card["scores"]["average"], card["subset"]["average"]
    out.print(f"average {whole:.1f} in the run, {subset:.1f} on the packed model's subset", highlight=False)
    print_path("packed", folder)
