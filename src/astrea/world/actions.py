"""What the commands of the embedded world do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from astrea.common.errors import AstreaError
from astrea.common.output import out, print_path, save_picture
from astrea.common.progress import TerminalReporter
from astrea.common.provenance import commit
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.world import bundle
from astrea.world.pretrain import parts_of
from astrea.world.pretrain import pretrain as make_parts
from astrea.world.scenes.draw import SPLITS, split_scene
from astrea.world.scenes.folder import QUESTIONS, write_scenes
from astrea.world.scenes.sheet import contact_sheet


def pretrain(recipe: str, overrides: Sequence[str], folder: Path, *, only: list[str] | None) -> None:
    """Train the parts of a recipe into a folder."""
    loaded = load_recipe(Recipe, recipe, overrides)
    if not only and not parts_of(loaded):
        raise AstreaError(
            f"the recipe {loaded.name!r} uses none of the parts that are trained here: its experts and its language "
            "model come from elsewhere",
            "train it as it is, or name a part with --only",
        )
    with TerminalReporter() as report:
        make_parts(loaded, folder, report=report, only=only)
    print_path("parts", folder)


def scenes(
    show: Path | None, folder: Path | None, *, split: str, count: int, seed: int, canvas: int, difficulty: float
) -> None:
    """Draw scenes as a contact sheet, as single pictures, or both."""
    if split not in SPLITS:
        raise AstreaError(f"unknown split {split!r}", f"choose one of {', '.join(SPLITS)}")
    drawn = [split_scene(split, i, seed, canvas=canvas, difficulty=difficulty) for i in range(count)]
    if folder is not None:
        asked = write_scenes(drawn, folder, seed)
        print_path("pictures", folder)
        print_path(f"{asked} questions", folder / QUESTIONS)
    if show is not None:
        save_picture(contact_sheet(drawn), show)
        print_path(f"{count} scenes", show)


def pack(run: Path, folder: Path) -> None:
    """Pack a finished run's model, small, into a folder."""
    with TerminalReporter() as report:
        card = bundle.bundle(run, folder, commit=commit(), report=report)
    whole, subset = card["scores"]["average"], card["subset"]["average"]
    out.print(f"average {whole:.1f} in the run, {subset:.1f} on the packed model's subset", highlight=False)
    print_path("packed", folder)
