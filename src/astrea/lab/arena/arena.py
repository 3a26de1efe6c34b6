"""The whole arena: choose variants, run what is missing, collect, write arena.json and its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from astrea.common.errors import AstreaError
from astrea.common.files import write_json_atomic
from astrea.common.paths import file_guard, is_file, read_json
from astrea.common.progress import SILENT, Reporter
from astrea.lab.arena.collect import Record, collect, read_runs
from astrea.lab.arena.equal_time import at_equal_time
from astrea.lab.arena.lr_sweep import KIND, sweep, sweep_of
from astrea.lab.arena.page.page import write_page
from astrea.lab.arena.pool import Pool
from astrea.lab.arena.run import Run
from astrea.lab.arena.sealed import OPEN, VALIDATION, TestSet, refuse_used
from astrea.lab.arena.variants import TIMED, Variant, choose, variants
from astrea.lab.settings.settings import Setting
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
"""What makes an arena of ten minutes: it shows that everything works, not which variant is better."""


@dataclass(frozen=True)
class Arena:
    """What the command line asks for.

    recipe, overrides: the base of all variants. wanted: names and kinds, comma-separated. seeds: how many, counted
    from the recipe's own. equal_time: also run the best others for as long as Astrea. command: how to do it again.
    lr_sweep: run the learning-rate sweep of the wanted strategies, with the first seed, and nothing else. test: what
    the runs are measured on. setting: whose overrides (before ``overrides``), variants and reports are used.
    """

    recipe: str
    overrides: tuple[str, ...]
    wanted: str
    seeds: int
    folder: Path
    processes: int
    equal_time: bool
    command: str
    lr_sweep: bool = False
    test: TestSet = OPEN
    setting: Setting | None = None

    def runs(self, chosen: Sequence[Variant]) -> list[Run]:
        """Every variant with every seed: seed by seed, so that an early look compares like with like."""
        first = self.base().seed
        return [
            self.run(each, seed)
            for seed in range(first, first + (1 if self.lr_sweep else self.seeds))
            for each in chosen
        ]

    def run(self, variant: Variant, seed: int) -> Run:
        """One variant with one seed."""
        reports = () if self.setting is None or variant.kind == KIND else self.setting.reports
        return Run(self.recipe, self.layers, variant, seed, self.test, reports)

    @property
    def layers(self) -> tuple[str, ...]:
        """The setting's overrides and those of the command line, which win."""
        return (*(self.setting.overrides if self.setting is not None else ()), *self.overrides)

    def variants(self) -> list[Variant]:
        """Everyone who may take part."""
        base = self.base()
        return [*variants(base), *(self.setting.more(base) if self.setting is not None else ())]

    def base(self) -> Recipe:
        """The recipe that variants change."""
        return load_recipe(Recipe, self.recipe, self.layers)


def run_arena(arena: Arena, *, report: Reporter = SILENT) -> tuple[dict[str, Any], dict[str, str]]:
    """Run what is missing and write ``arena.json`` (and ``arena.html``), or those of another test set; goes on where a
    killed one was.

    Returns:
        What arena.json holds, and the error of every run that failed, by the run's name. Of a sealed test set there is
        no file before every run has finished.

    Raises:
        AstreaError: an unknown variant, no strategy to sweep, options that exclude each other, a sealed seed that has
            been used, a bad recipe, or a folder that cannot be written.
    """
    refuse_together(arena)
    base = arena.base()
    refuse_used(arena.test, arena.folder, base.world)
    everyone = arena.variants()
    pool = Pool(arena.folder, arena.processes, report)
    chosen = sweep_of(base, everyone, arena.wanted) if arena.lr_sweep else choose(everyone, arena.wanted)
    pool.run(arena.runs(chosen))
    if arena.equal_time:
        try:
            finalists = at_equal_time(current(arena, everyone, report=Reporter()), everyone)
        except AstreaError as error:
            pool.failed["wall"] = str(error)
        else:
            pool.run(arena.runs(finalists))
    made = {
        "recipe": arena.recipe,
        "pretrain": base.pretrain,
        "command": arena.command,
        **collect(current(arena, everyone, report=report), best=best_on_validation(arena)),
        "measured_on": arena.test.split,
        "sealed": arena.test.sealed,
        "setting": None if arena.setting is None else arena.setting.title,
    }
    if arena.test.sealed is not None and pool.failed:
        return made, pool.failed
    name = arena.test.name
    with file_guard(arena.folder):
        write_json_atomic(arena.folder / f"{name}.json", made)
    with file_guard(arena.folder / f"{name}.html"):
        write_page(made, arena.folder / f"{name}.html")
    return made, pool.failed


def refuse_together(arena: Arena) -> None:
    """Refuse options that exclude each other.

    Raises:
        AstreaError: they do.
    """
    if arena.lr_sweep and arena.equal_time:
        raise AstreaError(
            "--trials runs nothing but the learning-rate sweep, so not --wall either", "run one after the other"
        )
    if arena.test.sealed is not None and (arena.lr_sweep or arena.equal_time):
        option = "--trials" if arena.lr_sweep else "--wall"
        raise AstreaError(
            f"{option} chooses, and a sealed test set is only measured on", f"run {option} with --on validation before"
        )


def best_on_validation(arena: Arena) -> str | None:
    """The best other strategy as validation had it, for a sealed test set; None where it was not measured there."""
    path = arena.folder / f"{VALIDATION}.json"
    if arena.test.sealed is None or not is_file(path):
        return None
    found = read_json(path)
    return (found.get("best_other") or {}).get("name") if isinstance(found, dict) else None


def current(arena: Arena, everyone: Sequence[Variant], *, report: Reporter = SILENT) -> list[Record]:
    """The runs in the folder that belong to this recipe; others are reported and left out, never mixed in."""
    base = arena.base()
    known = {(each.kind, each.name): each for each in (*everyone, *sweep(base))}
    found: list[tuple[Record, bool]] = []
    for record in read_runs(arena.folder, warn=report.say, cells=arena.test.cells):
        timed = record["kind"] == "wall"
        kinds = ("strategy", TIMED) if timed else (record["kind"],)
        own = next((known[kind, record["name"]] for kind in kinds if (kind, record["name"]) in known), None)
        if own is not None and timed:  # its number of steps came from measured seconds, so only the rest is checked
            own = replace(own, overrides=(*own.overrides, *record["overrides"][-1:]))
        if record["kind"] == KIND and record["seed"] != base.seed:  # not to be compared with those of the first seed
            own = None
        try:
            digests = () if own is None else arena.run(own, record["seed"]).digests()
        except AstreaError:
            digests = ()
        if record["digest"] in digests:
            found.append((record, record["seed"] == base.seed or record["digest"] != digests[0]))
        else:
            report.say(f"{stem(record)}.json was made with other settings; it is left out of arena.json")
    return of_one_kind(found, base.seed, report)


def of_one_kind(found: Sequence[tuple[Record, bool]], first: int, report: Reporter) -> list[Record]:
    """Runs of further seeds with the first seed's training pictures, or with pictures of their own: never both.

    Args:
        found: runs, and whether each was trained on the first seed's pictures. first: that seed.
    """
    if all(record["seed"] == first or not same for record, same in found):
        return [record for record, _ in found]
    for record, same in found:
        if not same:
            report.say(
                f"{stem(record)}.json has training pictures of its own seed, those of earlier runs here do not; "
                "it is left out of arena.json"
            )
    return [record for record, same in found if same]


def stem(record: Record) -> str:
    """The name of a run's file, without the ending."""
    return f"{record['kind']}-{record['name']}-{record['seed']}"
