"""Equal time: the best other strategies again, with as many steps as fit into Astrea's training time; in a setting that
has one, Astrea without a stage, which gives that stage's time to `tune`."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from astrea.common.errors import AstreaError
from astrea.lab.arena.collect import SELF, Record, ranked
from astrea.lab.arena.variants import TIMED, Variant

FINALISTS = 3


def at_equal_time(records: Iterable[Record], everyone: list[Variant]) -> list[Variant]:
    """The finalists with another number of `tune` steps:

        steps = own steps + (Astrea's training seconds - own) / own seconds per step of `tune`

    from the seconds that the equal-step runs took, medians over seeds: one run on a machine that was busy with
    something else must not count. A strategy that is slower than Astrea gets fewer. Variants of the kind "timed" have
    no run at equal steps; they are Astrea without `align`, whose seconds are what they get more.

    Args:
        records: runs at equal steps. everyone: every variant, whose overrides are kept.

    Raises:
        AstreaError: there is no run of Astrea, or none of another strategy and nothing timed.
    """
    rivals: dict[str, list[Record]] = {}
    for record in records:
        if record["kind"] == "strategy":
            rivals.setdefault(record["name"], []).append(record)
    others = [item for item in ranked(rivals) if item[0] != SELF][:FINALISTS]
    timed = [each for each in everyone if each.kind == TIMED]
    if SELF not in rivals or not (others or timed):
        raise AstreaError(
            "equal time needs finished runs of astrea and of another strategy",
            "run the arena with both before (or together with) --wall",
        )
    wanted = median(run["wall_s"] for run in rivals[SELF])
    known = {each.name: each for each in everyone if each.kind == "strategy"}
    found = []
    for name, runs in others:
        steps = runs[0]["tune_steps"]
        per_step = median(run["seconds"]["tune"] for run in runs) / steps
        more = (wanted - median(run["wall_s"] for run in runs)) / per_step
        overrides = (*known[name].overrides, f"tune.steps={max(1, round(steps + more))}")
        found.append(Variant(name, "wall", overrides, f"{name}, trained as long as astrea ({wanted:.0f} s)"))
    ours = rivals[SELF]
    saved, spent = (median(stage_seconds(run, stage) for run in ours) for stage in ("align", "tune"))
    for each in timed:
        steps = ours[0]["tune_steps"]
        more = (*each.overrides, f"tune.steps={steps + round(saved * steps / spent)}")
        found.append(Variant(each.name, "wall", more, f"{each.note}, trained as long as astrea ({wanted:.0f} s)"))
    return found


def stage_seconds(run: Record, stage: str) -> float:
    """Of a stage and all its phases."""
    return float(sum(taken for name, taken in run["seconds"].items() if name.split("/")[0] == stage))
