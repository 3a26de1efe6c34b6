"""Commands about recipes: show, check, new."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from astrea.cli.app import Overrides, app, out, print_path
from astrea.common.errors import AstreaError
from astrea.common.paths import exists, file_guard, is_file, is_folder

recipes = typer.Typer(
    help="Show, check and write recipes: what a run is made of.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(recipes, name="recipe")

NameOrFile = Annotated[
    str, typer.Argument(help="A shipped recipe's name, a YAML file, or the folder of a run.", metavar="RECIPE")
]


@recipes.command()
def show(recipe: NameOrFile, overrides: Overrides = None) -> None:
    """Print a whole recipe: every key with its value, bases and changes worked in.

    [bold]astrea recipe show tiny[/bold]
    [bold]astrea recipe show runs/mine tune.steps=800[/bold]
    """
    from astrea.recipes.loader import dump_recipe, load_recipe
    from astrea.recipes.recipe import Recipe

    sys.stdout.write(dump_recipe(load_recipe(Recipe, file_of(recipe), overrides or [], saved=is_folder(recipe))))


@recipes.command()
def check(recipe: NameOrFile, overrides: Overrides = None) -> None:
    """Say what is wrong with a recipe, with file and line. Ends with status 1 if anything is.

    [bold]astrea recipe check mine.yaml[/bold]
    """
    from astrea.recipes.check import amiss
    from astrea.recipes.loader import load_with_origins
    from astrea.recipes.recipe import Recipe

    loaded, written = load_with_origins(Recipe, file_of(recipe), overrides or [], saved=is_folder(recipe))
    if faults := amiss(loaded, written):
        raise AstreaError("\n".join(faults), "correct these, then check again")
    steps = " + ".join(str(getattr(loaded, stage).steps) for stage in ("align", "fuse", "tune"))
    out.print(f"{recipe}: nothing is wrong", highlight=False, soft_wrap=True)
    out.print(f"  experts  {', '.join(loaded.experts)}", highlight=False, soft_wrap=True)
    out.print(f"  data     {loaded.data.train or 'the embedded world'}", highlight=False, soft_wrap=True)
    out.print(f"  steps    {steps} (align, fuse, tune)", highlight=False)


@recipes.command()
def new(
    path: Annotated[Path, typer.Argument(help="YAML file to write; it must not be there yet.", metavar="FILE")],
    data: Annotated[str, typer.Option("--data", help="Data file to train on, or a pattern.")],
    images: Annotated[
        str | None, typer.Option("--images", help="Where the pictures' paths start; left out: the data file's folder.")
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            "--validation",
            help="Held-out data file, or the share of the data that is held out (0.1): losses while training, scores.",
        ),
    ] = None,
    base: Annotated[str, typer.Option("--base", help="Recipe that it starts from.")] = "tiny",
) -> None:
    """Write a small recipe for data of one's own, with comments.

    [bold]astrea recipe new mine.yaml --data train.jsonl --validation held-out.jsonl[/bold]
    """
    from astrea.common.files import write_atomic
    from astrea.recipes.loader import load_recipe
    from astrea.recipes.new import new_recipe
    from astrea.recipes.recipe import Recipe

    if exists(path):
        raise AstreaError(f"{path} is there already", "choose another name, or remove it yourself")
    recipe = load_recipe(Recipe, base)
    text = new_recipe(
        str(path), base, path.stem or "mine", train=data, images=images, validation=validation, recipe=recipe
    )
    with file_guard(path):
        write_atomic(path, text.encode())
    print_path("recipe", path)
    out.print(f"train it with: astrea train {path}", highlight=False, soft_wrap=True)


def file_of(recipe: str) -> str:
    """The recipe in a run's or a model's folder; anything else as it is."""
    if not is_folder(recipe):
        return recipe
    for name in ("recipe.yaml", "recipe.json"):
        if is_file(Path(recipe, name)):
            return str(Path(recipe, name))
    raise AstreaError(f"{recipe} is a folder without a recipe", "give a recipe's name or file, or a run's folder")
