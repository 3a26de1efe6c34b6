"""What the commands of the embedded world do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from astrea.common.errors import AstreaError
from astrea.common.output import out, print_path, save_picture
from astrea.common.progress import TerminalReporter
from astrea.common.provenance import commit
from astrea.data.worlds import open_world
from astrea.model.components import LANGUAGE
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.recipes.saved import read_recipe
from astrea.training.write_learned import write_learned
from astrea.world import bundle
from astrea.world.experts.compact import COMPACT
from astrea.world.folder import QUESTIONS, write_scenes
from astrea.world.gallery import open_gallery
from astrea.world.pretrain import parts_of
from astrea.world.pretrain import pretrain as make_parts
from astrea.world.sheet import contact_sheet


def pretrain(
    recipe: str, overrides: Sequence[str], folder: Path, *, only: list[str] | None, shipped: Sequence[str] = ()
) -> None:
    """Train the parts of a recipe into a folder.

    Args:
        shipped: "experts" or "language": copied from the package instead.
    """
    loaded = load_recipe(Recipe, recipe, overrides)
    if loaded.world.kind != "drawn":
        if only or shipped:
            option = "--only" if only else f"--shipped-{shipped[0]}"
            raise AstreaError(f"{option} is of the drawn world's parts", "leave it out")
        with TerminalReporter() as report:
            open_world(loaded).pretrain(folder, report=report)
        print_path("parts", folder)
        return
    if not only and not parts_of(loaded):
        raise AstreaError(
            f"the recipe {loaded.name!r} uses none of the parts that are trained here: its experts and its language "
            "model come from elsewhere",
            "train it as it is, or name a part with --only",
        )
    copied = [name for kind in shipped for name in (COMPACT if kind == "experts" else (LANGUAGE,))]
    with TerminalReporter() as report:
        make_parts(loaded, folder, report=report, only=only, shipped=copied)
    print_path("parts", folder)


CANVAS = {"drawn": 64, "photographs": 320}
"""Side in pixels of the pictures that are shown, unless somebody says another."""


def scenes(
    show: Path | None,
    folder: Path | None,
    *,
    split: str,
    count: int,
    kind: str,
    seed: int,
    canvas: int | None,
    difficulty: float | None,
    cut_outs: Path | None,
) -> None:
    """Show scenes as a contact sheet, as single pictures, or both."""
    said: dict[str, object] = {"kind": kind, "seed": seed, "canvas": canvas or CANVAS.get(kind, 64)}
    if difficulty is not None:
        said["difficulty"] = difficulty
    if cut_outs is not None:
        said["options"] = {"folder": str(cut_outs)}
    world = load_recipe(Recipe, "tiny", [f"world={json.dumps(said)}"]).world
    gallery = open_gallery(world)
    some = gallery.scenes(split, count)
    if folder is not None:
        asked = write_scenes(some, folder, world.seed, templates=gallery.templates(split), picture=gallery.picture)
        print_path("pictures", folder)
        print_path(f"{asked} questions", folder / QUESTIONS)
    if show is not None:
        sheet = contact_sheet([gallery.tile(scene) for scene in some], gallery.columns, gallery.scale)
        save_picture(sheet, show)
        print_path(f"{count} scenes", show)


def pack(run: Path, folder: Path) -> None:
    """Pack a finished run's model, small, into a folder."""
    with TerminalReporter() as report:
        if read_recipe(run).llm.checkpoint is None:
            card = bundle.bundle(run, folder, commit=commit(), report=report)
            whole, subset = card["scores"]["average"], card["subset"]["average"]
            said = f"average {whole:.1f} in the run, {subset:.1f} on the packed model's subset"
        else:
            size, values = write_learned(run, folder, report=report)
            said = f"{size / 2**20:.2f} MiB: " + ", ".join(f"{part} {count:,}" for part, count in values.items())
    out.print(said, highlight=False)
    print_path("packed", folder)
