"""The command line. Every command ends with status 0 when it did what was asked, 1 on an error the message tells how to
mend, 2 on a misused command line, 130 when interrupted."""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from astrea.errors import AstreaError

if TYPE_CHECKING:
    from PIL.Image import Image

    from astrea.config import Run
    from astrea.explain import Explanation

app = typer.Typer(
    name="astrea",
    help="Vision-language models that look through several vision experts at once.",
    epilog="Start with `astrea quickstart`: it trains, evaluates and explains a model in minutes, on a processor.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
out = Console()

RunFolder = Annotated[Path, typer.Option("--out", help="Run folder to write.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Changes to the recipe, such as seed=1 tune.steps=800.", metavar="KEY=VALUE")
]
ModelFolder = Annotated[
    Path,
    typer.Argument(
        help="Model folder, such as runs/quickstart/model; shipped: the one in the package.", metavar="MODEL"
    ),
]
# A list, because only of a list does the command line know that what follows it comes first.
PerhapsModel = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Model folder, such as runs/quickstart/model. Left out: the model that comes with the package.",
        metavar="MODEL",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Let the model import the expert classes that it names.")
]


@app.command()
def quickstart(folder: RunFolder = Path("runs/quickstart"), overrides: Overrides = None) -> None:
    """Train the tiny recipe, evaluate it on the twelve tasks, write a report. Minutes on two cores.

    Continues where it was if it was interrupted.
    """
    from astrea.config import Run
    from astrea.recipes.loader import load_recipe

    run = load_recipe(Run, "tiny", overrides or [])
    train_and_report(run, folder, resume=(folder / "checkpoints").exists())


@app.command()
def train(
    recipe: Annotated[str | None, typer.Argument(help="A shipped recipe's name (tiny) or a YAML file.")] = None,
    overrides: Overrides = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Run folder; runs/<recipe> by default.")] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Continue this run folder, bit-exactly.", metavar="RUN")
    ] = None,
    evaluate_after: Annotated[
        bool, typer.Option("--evaluate/--no-evaluate", help="Evaluate and report when done.")
    ] = True,
) -> None:
    """Train a recipe: align, fuse, tune.

    [bold]astrea train tiny seed=1 tune.steps=800 --out runs/longer[/bold]
    [bold]astrea train tiny pretrain=scratch[/bold]  everything from nothing (about an hour)
    [bold]astrea train --resume runs/longer[/bold]   go on after an interruption
    """
    from astrea.config import Run
    from astrea.evaluation.finish import read_run
    from astrea.recipes.loader import load_recipe

    if resume is not None:
        if recipe is not None or overrides or folder is not None:
            raise typer.BadParameter(
                "takes the recipe and the folder from the run itself; leave RECIPE, KEY=VALUE and --out out",
                param_hint="--resume",
            )
        train_and_report(read_run(resume), resume, resume=True, evaluate_after=evaluate_after)
        return
    if recipe is None:
        raise typer.BadParameter("name one (astrea train tiny) or continue a run (--resume RUN)", param_hint="RECIPE")
    run = load_recipe(Run, recipe, overrides or [])
    train_and_report(run, folder or Path("runs") / run.name, resume=False, evaluate_after=evaluate_after)


def train_and_report(run: Run, folder: Path, *, resume: bool, evaluate_after: bool = True) -> None:
    """Train into ``folder``, then evaluate and print where everything lies."""
    from astrea.evaluation.finish import finish
    from astrea.evaluation.summary import terminal_table
    from astrea.files import write_atomic
    from astrea.progress import TerminalReporter
    from astrea.recipes.loader import dump_recipe
    from astrea.training.checkpoint import file_guard
    from astrea.training.run import Interrupted, has_checkpoints, how_to_go_on
    from astrea.training.run import train as run_training

    with TerminalReporter() as report:
        with file_guard(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if not has_checkpoints(folder):  # whoever has some keeps the recipe they belong to
                write_atomic(folder / "recipe.yaml", dump_recipe(run).encode())
        try:
            model = run_training(run, folder, resume=resume, report=report)
            results = finish(run, folder, report=report) if evaluate_after else None
        except Interrupted as stopped:
            report.say(str(stopped))
            raise typer.Exit(130) from stopped
        except KeyboardInterrupt:
            report.say(f"stopped; {how_to_go_on(folder)}")
            raise typer.Exit(130) from None
    if results is not None:
        out.print(terminal_table(results))
        print_path("report", folder / "report.html")
    print_path("model", model)


@app.command()
def pretrain(
    recipe: Annotated[str, typer.Argument(help="Recipe whose parts are made.")] = "tiny",
    overrides: Overrides = None,
    folder: RunFolder = Path("runs/parts"),
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Only this part (repeat for more); for parallel runs.")
    ] = None,
) -> None:
    """Train the four compact experts and the small language model that runs start from."""
    from astrea.config import Run
    from astrea.progress import TerminalReporter
    from astrea.recipes.loader import load_recipe
    from astrea.training.pretrain import pretrain as make_parts

    run = load_recipe(Run, recipe, overrides or [])
    with TerminalReporter() as report:
        make_parts(run, folder, report=report, only=only)
    print_path("parts", folder)


@app.command()
def scenes(
    show: Annotated[Path, typer.Option("--show", help="PNG file to write the contact sheet to.")] = Path("scenes.png"),
    split: Annotated[str, typer.Option(help="train, validation, test or novel.")] = "train",
    count: Annotated[int, typer.Option(min=1, max=400, help="How many scenes.")] = 32,
    seed: Annotated[int, typer.Option(help="The world's seed.")] = 0,
    canvas: Annotated[int, typer.Option(min=48, max=512, help="Side of a picture in pixels.")] = 64,
    difficulty: Annotated[float, typer.Option(min=0, max=1, help="How strong night, blur, noise, clutter are.")] = 0.5,
) -> None:
    """Draw scenes of the embedded world on a contact sheet to look at."""
    from astrea.scenes.draw import SPLITS, split_scene
    from astrea.scenes.sheet import contact_sheet

    if split not in SPLITS:
        raise AstreaError(f"unknown split {split!r}", f"choose one of {', '.join(SPLITS)}")
    drawn = [split_scene(split, i, seed, canvas=canvas, difficulty=difficulty) for i in range(count)]
    save_picture(contact_sheet(drawn), show)
    print_path(f"{count} scenes", show)


@app.command()
def evaluate(
    model: ModelFolder,
    tasks: Annotated[str, typer.Option(help="Comma-separated tasks, or all.")] = "all",
    masking: Annotated[bool, typer.Option("--masking/--no-masking", help="Also mask each expert in turn.")] = False,
    split: Annotated[str, typer.Option(help="test or validation.")] = "test",
    recipe: Annotated[str, typer.Option(help="Recipe whose world and test sizes are used.")] = "tiny",
    overrides: Overrides = None,
    as_json: AsJson = False,
    trust_remote_code: Trust = False,
) -> None:
    """Evaluate a model on some or all of the twelve tasks."""
    from astrea.config import Run
    from astrea.evaluation.runner import evaluate as run_evaluation
    from astrea.evaluation.summary import terminal_table
    from astrea.evaluation.tasks import TASKS
    from astrea.loading import load_model
    from astrea.progress import TerminalReporter
    from astrea.recipes.loader import load_recipe

    chosen = TASKS if tasks == "all" else tuple(name.strip() for name in tasks.split(","))
    unknown = [name for name in chosen if name not in TASKS]
    if unknown:
        raise AstreaError(f"unknown task {unknown[0]!r}", f"known tasks: {', '.join(TASKS)}")
    if split not in ("test", "validation"):
        raise AstreaError(f"unknown split {split!r}", "choose test or validation")
    run = load_recipe(Run, recipe, overrides or [])
    loaded, processor = load_model(model, trust_remote_code=trust_remote_code)
    with TerminalReporter() as report:
        results, _, _ = run_evaluation(
            loaded, processor.tokenizer, run.world, run.data, tasks=chosen, masking=masking, split=split, report=report
        )
    print_json(results) if as_json else out.print(terminal_table(results))


@app.command()
def ask(
    *,
    context: typer.Context,
    model: PerhapsModel = None,
    image: Annotated[Path, typer.Argument(help="A picture: JPEG, PNG, WEBP, GIF, BMP or TIFF.")],
    question: Annotated[str, typer.Argument(help='Such as "how many umbrellas are there?"')],
    as_json: AsJson = False,
    show: Annotated[Path | None, typer.Option("--show", help="Write a picture of the experts' readings here.")] = None,
    trust_remote_code: Trust = False,
) -> None:
    """Ask a question about a picture: the answer, which experts it leaned on, and what each of them saw.

    [bold]astrea ask PICTURE "what colour is the cat?"[/bold]  asks the model that comes with the package
    [bold]astrea ask MODEL PICTURE "what colour is the cat?"[/bold]  asks one that you trained
    """
    from astrea.data.images import load_image
    from astrea.explain import explain
    from astrea.loading import load_model

    folder = model_folder(context, model, image, "QUESTION")
    loaded, processor = load_model(folder, trust_remote_code=trust_remote_code)
    began = time.perf_counter()
    picture = load_image(image)
    why = explain(loaded, processor, picture, question)
    seconds = time.perf_counter() - began
    if show is not None:
        from astrea.experts.drawing import draw_readings

        save_picture(draw_readings(picture, why.readings), show)
    if as_json:
        print_json(explanation_json(why) | {"seconds": round(seconds, 3)})
        return
    out.print(f"[bold]{escape(why.answer or '(no answer)')}[/bold]   (probability {why.confidence:.2f})")
    for name, share in sorted(why.shares.items(), key=lambda item: -item[1]):
        effect = why.masking[name]
        without = "same answer" if effect.answer == why.answer else f"would answer {effect.answer!r}"
        reading = why.readings[name]
        saw = reading.caption or ", ".join(reading.labels) or "nothing"
        out.print(
            f"  {name:<15} share {share:4.0%}   without it: {without:<28} saw: {saw}", markup=False, soft_wrap=True
        )


def model_folder(context: typer.Context, given: list[Path] | None, first: Path, last: str) -> Path:
    """The one model folder that was given, or the name of the shipped model; ``first`` is the argument after it.

    Raises:
        click.UsageError: more than one was given, or it is the ``last`` argument that was left out.
    """
    from astrea.loading import SHIPPED_NAME

    if given and len(given) > 1:
        context.fail(f"Got {len(given) - 1} more argument(s) than MODEL and what follows it")
    if not given and (first / "config.json").is_file():
        context.fail(f"Missing argument '{last}'.")
    return given[0] if given else Path(SHIPPED_NAME)


def explanation_json(why: Explanation) -> dict[str, Any]:
    """An explanation as a program reads it."""
    return {
        "answer": why.answer,
        "confidence": round(why.confidence, 4),
        "shares": {name: round(share, 4) for name, share in why.shares.items()},
        "readings": {name: reading.as_dict() for name, reading in why.readings.items()},
        "masking": {n: {"answer": e.answer, "nats_lost": round(e.nats_lost, 4)} for n, e in why.masking.items()},
    }


@app.command()
def retrieve(
    *,
    context: typer.Context,
    model: PerhapsModel = None,
    folder: Annotated[Path, typer.Argument(help="Folder of pictures (searched recursively).")],
    text: Annotated[str, typer.Argument(help='Such as "a red sun and a blue cow."')],
    top: Annotated[int, typer.Option(min=1, help="How many pictures to show.")] = 5,
    as_json: AsJson = False,
    trust_remote_code: Trust = False,
) -> None:
    """Find the pictures of a folder that fit a text best.

    [bold]astrea retrieve FOLDER "a red sun and a blue cow."[/bold]  by the model that comes with the package
    [bold]astrea retrieve MODEL FOLDER "a red sun and a blue cow."[/bold]  by one that you trained
    """
    from astrea.loading import load_model
    from astrea.progress import TerminalReporter
    from astrea.retrieval import rank_folder

    loaded, processor = load_model(model_folder(context, model, folder, "TEXT"), trust_remote_code=trust_remote_code)
    with TerminalReporter() as report:
        found = rank_folder(loaded, processor, folder, text, top=top, report=report)
    if as_json:
        print_json([{"image": str(hit.path), "score": round(hit.score, 4)} for hit in found])
        return
    for hit in found:
        out.print(f"{hit.score:9.3f}  {hit.path}", markup=False, highlight=False, soft_wrap=True)


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
) -> None:
    """Compare Astrea with every other way to fuse, and with itself when an ingredient is off.

    [bold]astrea arena --quick[/bold]
    [bold]astrea arena --strategies astrea,sequence_concat,ablations --seeds 3 tune.steps=200[/bold]

    Every finished contestant and seed is a file; the same command goes on where it was.
    """
    import shlex

    from astrea.arena.run import QUICK, QUICK_OVERRIDES, Arena, run_arena
    from astrea.arena.table import arena_table
    from astrea.progress import TerminalReporter

    asked = Arena(
        recipe,
        (*(QUICK_OVERRIDES if quick else ()), *(overrides or [])),
        strategies or (QUICK if quick else "all"),
        seeds or (1 if quick else 3),
        folder,
        processes,
        wall,
        shlex.join(["astrea", *sys.argv[1:]]),
    )
    with TerminalReporter() as report:
        try:
            made, failed = run_arena(asked, report=report)
        except KeyboardInterrupt:
            report.say("stopped; finished cells are kept, go on with the same command")
            raise typer.Exit(130) from None
    out.print(arena_table(made))
    print_path("figures", folder / "arena.json")
    if (folder / "arena.html").is_file():
        print_path("page", folder / "arena.html")
    if failed:
        told = "\n".join(f"{name}: {said}" for name, said in failed.items())
        raise AstreaError(f"{len(failed)} failed:\n{told}", "mend these; the same command runs only what is missing")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Run folder, such as runs/quickstart.")]) -> None:
    """Write a run's report.html again from its results."""
    from astrea.evaluation.report import write_report

    print_path("report", write_report(run))


@app.command()
def pack(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, such as runs/quickstart.", metavar="RUN")],
    folder: Annotated[Path, typer.Option("--out", help="Folder to write; new or empty.", metavar="FOLDER")],
) -> None:
    """For developers: pack a finished run's model as the one that ships inside the package.

    Small: fp16, and without the experts, which ship as parts. Put what it writes into src/astrea/weights/model.
    """
    from astrea.progress import TerminalReporter
    from astrea.provenance import commit
    from astrea.shipping import pack as pack_run

    with TerminalReporter() as report:
        card = pack_run(run, folder, commit=commit(), report=report)
    whole, subset = card["scores"]["average"], card["subset"]["average"]
    out.print(f"average {whole:.1f} in the run, {subset:.1f} on the packed model's subset", highlight=False)
    print_path("packed", folder)


def print_path(what: str, path: Path) -> None:
    """Where something lies, in one line that can be copied."""
    out.print(f"{what + ':':<8} {path}", markup=False, highlight=False, soft_wrap=True)


def save_picture(picture: Image, path: Path) -> None:
    """Write a picture in the format that the path's ending names."""
    from astrea.training.checkpoint import file_guard

    with file_guard(path):
        try:
            picture.save(path)
        except (ValueError, KeyError) as error:  # Pillow knows no such ending, or can only read that format
            raise AstreaError(f"{path}: no picture can be written under this name", "end it in .png") from error


def print_json(value: object) -> None:
    """Plain JSON on standard output, whatever the terminal's width; what is NaN was not measured and is null."""
    from astrea.training.checkpoint import finite_or_null

    sys.stdout.write(json.dumps(finite_or_null(value), indent=2, allow_nan=False) + "\n")


def main() -> None:
    """Entry point: errors the user can mend are told in words, without a traceback."""

    def tell(text: str, style: str) -> None:
        Console(stderr=True).print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: tell(f"note: {message}", "yellow")
            app(prog_name="astrea")
    except AstreaError as error:
        tell(f"error: {error}", "red")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
