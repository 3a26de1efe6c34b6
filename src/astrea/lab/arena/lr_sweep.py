"""The learning-rate sweep: every strategy with 0.5 to 4 times the rates that it starts from, scored on validation.

Each strategy gets the same small number of runs, one seed each. What they find is written into `variants.TUNED` by
hand; the test set plays no part in it. Rates of other stages (a student's distilling) are left as they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from astrea.common.errors import AstreaError
from astrea.lab.arena.variants import PEER_RATE, Variant, choose, strategies
from astrea.recipes.recipe import Recipe

KIND = "trial"

FACTORS = ("0.5", "1", "2", "4")
"""What learning rates are multiplied by, as arena.json and file names write it."""


def sweep(recipe: Recipe) -> list[Variant]:
    """Every strategy at every factor: multiples of the rates that it starts from, never those of `TUNED`."""
    return [sweep_variant(recipe, each, factor) for each in strategies(recipe) for factor in FACTORS]


def sweep_variant(recipe: Recipe, strategy: Variant, factor: str) -> Variant:
    """A strategy with the learning rates of its stages times a factor; nothing else differs."""
    base = {"align": recipe.align.lr, "fuse": recipe.fuse.lr, "tune": recipe.tune.lr}
    if strategy.name != "astrea":
        base = dict.fromkeys(base, PEER_RATE)
    if recipe.align.steps == 0 or "align.steps=0" in strategy.overrides:
        del base["align"]
    rates = (f"{stage}.lr={float(factor) * lr!r}" for stage, lr in base.items())
    note = f"{strategy.name}, learning rates times {factor}"
    return Variant(f"{strategy.name}@{factor}", KIND, (*strategy.overrides, *rates), note)


def sweep_of(recipe: Recipe, everyone: Sequence[Variant], wanted: str) -> list[Variant]:
    """The sweep of the strategies that a list of names and kinds asks for; see `choose`.

    Raises:
        AstreaError: an unknown name, or no strategy among what was named.
    """
    names = {each.name for each in choose(everyone, wanted) if each.kind == "strategy"}
    found = [each for each in sweep(recipe) if strategy_of(each.name)[0] in names]
    if not found:
        raise AstreaError(
            f"{wanted!r} names no strategy, and only strategies have a learning-rate sweep", "add one, or strategies"
        )
    return found


def strategy_of(name: str) -> tuple[str, str]:
    """The strategy and the factor of a variant's name: mova@0.5 is mova, with half the rates."""
    strategy, _, factor = name.rpartition("@")
    return strategy, factor


def sweep_results(
    runs: Mapping[str, Iterable[Mapping[str, Any]]], rivals: Mapping[str, Iterable[Mapping[str, Any]]]
) -> dict[str, dict[str, Any]]:
    """What the sweep found.

    Args:
        runs: finished runs of the sweep by name, of one seed. rivals: finished runs by strategy.

    Returns:
        By strategy: ``rates``, factor -> average on validation (0..100; None: not finished). ``best``, the factor with
        the highest; of equals the rates it starts from; None until all are finished. ``used``, the factor whose recipe
        is that of the strategy's run of this seed; None without such a run, or where it had other rates.
    """
    found: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for name, records in runs.items():
        strategy, factor = strategy_of(name)
        found[strategy][factor] = next(iter(records))
    rows = {}
    for strategy, by_factor in found.items():
        rates = {factor: record["average"] for factor in FACTORS if (record := by_factor.get(factor))}
        best = max(rates, key=lambda factor: (rates[factor], factor == "1")) if len(rates) == len(FACTORS) else None
        digests = {trained(record) for record in rivals.get(strategy, ())}
        used = next((factor for factor in rates if trained(by_factor[factor]) in digests), None)
        rows[strategy] = {"rates": {factor: rates.get(factor) for factor in FACTORS}, "best": best, "used": used}
    return rows


def trained(record: Mapping[str, Any]) -> str:
    """The digest of what was trained, wherever it was measured; runs from before there was a choice name only one."""
    return str(record.get("trained", record["digest"]))
