"""The whole arena: choose contestants, run what is missing, collect, write arena.json and its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from astrea.common.errors import AstreaError
from astrea.common.files import write_json_atomic
from astrea.common.paths import file_guard
from astrea.common.progress import SILENT, Reporter
from astrea.lab.arena.collect import Record, collect, read_cells
from astrea.lab.arena.equal_time import at_equal_wall
from astrea.lab.arena.lr_sweep import KIND, trials, trials_of
from astrea.lab.arena.page.page import write_page
from astrea.lab.arena.pool import Pool
from astrea.lab.arena.run import Cell, digest
from astrea.lab.arena.variants import Contestant, choose, contestants
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe

QUICK = "astrea,sequence_concat,channel_concat,allocator"
QUICK_OVERRIDES = (
    "data.train_scenes=1000",
    "data.test_questions=30",
    "data.test_captions=20",
    "data.test_retrieval_groups=8",
    "align.steps=60",
    "fuse.steps=20",
    "tune.steps=100",
)
"""What makes an arena of ten minutes: it shows that all works, and nothing about who is better."""


@dataclass(frozen=True)
class Arena:
    """What was asked for.

    recipe, overrides: the base of all contestants. wanted: names and kinds, comma-separated. seeds: how many, counted
    from the recipe's own. wall: also run the best others for as long as Astrea. command: how to do it again. trials:
    run the trials of the wanted strategies, with the first seed, and nothing else.
    """

    recipe: str
    overrides: tuple[str, ...]
    wanted: str
    seeds: int
    folder: Path
    processes: int
    wall: bool
    command: str
    trials: bool = False

    def cells(self, chosen: Sequence[Contestant]) -> list[Cell]:
        """Every contestant with every seed: seed by seed, so that an early look compares like with like."""
        first = self.base().seed
        return [
            Cell(self.recipe, self.overrides, each, seed)
            for seed in range(first, first + (1 if self.trials else self.seeds))
            for each in chosen
        ]

    def base(self) -> Recipe:
        """The recipe that contestants change."""
        return load_recipe(Recipe, self.recipe, self.overrides)


def run_arena(arena: Arena, *, report: Reporter = SILENT) -> tuple[dict[str, Any], dict[str, str]]:
    """Run what is missing and write ``arena.json`` (and ``arena.html``); goes on where a killed one was.

    Returns:
        What arena.json holds, and what went wrong by cell.

    Raises:
        AstreaError: an unknown contestant, no strategy to try, trials together with equal time, a bad recipe, or a
            folder that cannot be written.
    """
    if arena.trials and arena.wall:
        raise AstreaError("--trials runs nothing but trials, so not --wall either", "run one after the other")
    everyone = contestants(arena.base())
    pool = Pool(arena.folder, arena.processes, report)
    chosen = trials_of(arena.base(), everyone, arena.wanted) if arena.trials else choose(everyone, arena.wanted)
    pool.run(arena.cells(chosen))
    if arena.wall:
        try:
            finalists = at_equal_wall(current(arena, everyone, report=Reporter()), everyone)
        except AstreaError as error:
            pool.failed["wall"] = str(error)
        else:
            pool.run(arena.cells(finalists))
    made = {
        "recipe": arena.recipe,
        "command": arena.command,
        **collect(current(arena, everyone, report=report)),
    }
    with file_guard(arena.folder):
        write_json_atomic(arena.folder / "arena.json", made)
    with file_guard(arena.folder / "arena.html"):
        write_page(made, arena.folder / "arena.html")
    return made, pool.failed


def current(arena: Arena, everyone: Sequence[Contestant], *, report: Reporter = SILENT) -> list[Record]:
    """The cells in the folder that belong to this recipe; others are told of and left out, never mixed in."""
    base = arena.base()
    known = {(each.kind, each.name): each for each in (*everyone, *trials(base))}
    found: list[Record] = []
    for record in read_cells(arena.folder, warn=report.say):
        stem = f"{record['kind']}-{record['name']}-{record['seed']}"
        wall = record["kind"] == "wall"
        own = known.get(("strategy" if wall else record["kind"], record["name"]))
        if own is not None and wall:  # its number of steps came from measured seconds, so only the rest is checked
            own = replace(own, overrides=(*own.overrides, *record["overrides"][-1:]))
        if record["kind"] == KIND and record["seed"] != base.seed:  # not to be compared with those of the first seed
            own = None
        try:
            fits = own is not None and digest(
                Cell(arena.recipe, arena.overrides, own, record["seed"]).resolve()
            ) == record["digest"]  # fmt: skip
        except AstreaError:
            fits = False
        if fits:
            found.append(record)
        else:
            report.say(f"{stem}.json was made with other settings; it is left out of arena.json")
    return found
