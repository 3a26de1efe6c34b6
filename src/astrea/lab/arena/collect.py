"""From the runs of a folder to one arena.json: means over seeds, differences to Astrea, what each ingredient is worth.

Differences are "this one minus Astrea" in points of the average over the twelve tasks: below zero, Astrea is better.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from astrea.common.errors import AstreaError
from astrea.common.paths import is_folder, list_folder, read_json
from astrea.lab.arena.bootstrap import hierarchical_bootstrap, holm, paired_difference
from astrea.lab.arena.lr_sweep import KIND, sweep_results
from astrea.lab.arena.run import SCHEMA, unpacked_items
from astrea.lab.arena.statistics import mean_tree, summary
from astrea.lab.probes.pareto import WANTED
from astrea.lab.probes.robustness import CORRUPTIONS
from astrea.world.evaluation.tasks import TASKS

Record = Mapping[str, Any]
"""What a run's file holds."""

SELF = "astrea"

PROBES = ("masking", "contribution", "calibration", "pareto", "trust")
"""What is taken over from Astrea's probes (see `astrea.lab.probes.probes.probe`), as means over seeds."""


def read_runs(folder: Path, *, warn: Callable[[str], None], cells: str = "cells") -> list[dict[str, Any]]:
    """The runs in ``folder/cells``, by file name; one that cannot be read is reported and passed over."""
    found = []
    runs = folder / cells
    for path in (one for one in (list_folder(runs) if is_folder(runs) else []) if one.suffix == ".json"):
        record = read_run(path)
        if record is None:
            warn(f"{path.name} is not a run of this version; passed over")
        else:
            found.append(record)
    return found


def read_run(path: Path) -> dict[str, Any] | None:
    """What one file holds, or None when there is none, or none that this version wrote."""
    try:
        record = read_json(path)
    except AstreaError:
        return None
    return record if isinstance(record, dict) and record.get("schema") == SCHEMA and "digest" in record else None


def collect(records: Iterable[Record], *, best: str | None = None) -> dict[str, Any]:
    """The whole comparison, JSON-able. What was not measured is None or an empty mapping.

    Args:
        best: the best other strategy, where validation has chosen it; None = the best one here.
    """
    groups: dict[str, dict[str, list[Record]]] = defaultdict(dict)
    for record in sorted(records, key=lambda r: (r["kind"], r["name"], r["seed"])):
        groups[record["kind"]].setdefault(record["name"], []).append(record)
    rivals = groups["strategy"]
    ours = rivals.get(SELF, [])
    everyone = [record for kind in groups.values() for runs in kind.values() for record in runs]
    probes = [run.get("probes") or {} for run in ours]
    return {
        "schema": SCHEMA,
        "tasks": list(TASKS),
        "strategies": corrected({name: strategy_row(runs, ours) for name, runs in ranked(rivals)}),
        "best_other": best_other(rivals, best),
        "wins": wins(rivals),
        "ablations": corrected({name: short_row(runs, ours) for name, runs in ranked(groups["ablation"])}),
        "retraining": corrected(
            {name.removeprefix("without_"): short_row(runs, ours) for name, runs in groups["retraining"].items()}
        ),
        "pairs": corrected(
            {name.removeprefix("pair_"): short_row(runs, ours) for name, runs in ranked(groups["pair"])}
        ),
        "cur": cur(ours, groups["retraining"]),
        "reports": {
            f"{kind}/{name}": mean_tree([run["reports"] for run in runs])
            for kind, named in groups.items()
            for name, runs in named.items()
            if all(run.get("reports") for run in runs)
        },
        "conditions": {name: mean_tree([run["conditions"] for run in runs]) for name, runs in rivals.items()},
        "load": mean_tree([run["load"] for run in ours]),
        "shares": mean_tree([run["shares"] for run in ours]),
        **{name: mean_tree([probe.get(name) for probe in probes]) for name in PROBES},
        "robustness": {
            name: mean_tree([(run.get("probes") or {}).get("robustness") for run in runs])
            for name, runs in {SELF: ours, "without_allocator": groups["ablation"].get("allocator", [])}.items()
            if any(run.get("probes") for run in runs)
        },
        "adaptivity": {
            name: adaptivity_row(runs)
            for name, runs in {SELF: ours, **dict(ranked(groups["ablation"]))}.items()
            if any(run.get("probes") for run in runs)
        },
        "curves": {
            name: {str(run["seed"]): run["curve"] for run in runs if run["curve"]}
            for name, runs in rivals.items()
            if any(run["curve"] for run in runs)
        },
        "equal_wall": corrected({name: equal_time_row(runs, ours) for name, runs in ranked(groups["wall"])}),
        "trials": sweep_results(groups[KIND], rivals),
        "commit": ", ".join(sorted({record["commit"] for record in everyone if record["commit"]})) or None,
        "machine": everyone[0]["machine"] if everyone else None,
        "machines": len({json.dumps(record["machine"], sort_keys=True) for record in everyone}),
    }


def ranked(runs: Mapping[str, list[Record]]) -> list[tuple[str, list[Record]]]:
    """Variants from the best mean average to the worst."""
    return sorted(runs.items(), key=lambda item: -mean_average(item[1]))


def mean_average(runs: list[Record]) -> float:
    """The mean over seeds of the average over tasks."""
    return float(np.mean([run["average"] for run in runs]))


def strategy_row(runs: list[Record], ours: list[Record]) -> dict[str, Any]:
    """What arena.json holds of one strategy."""
    return {
        "note": runs[0]["note"],
        "average": {**summary([run["average"] for run in runs]), "seeds": len(runs), **interval(runs)},
        "values": {str(run["seed"]): run["average"] for run in runs},
        "tasks": {task: summary([run["tasks"][task] for run in runs]) for task in TASKS},
        "params_trainable": runs[0]["params_trainable"],
        "params_total": runs[0]["params_total"],
        "visual_tokens": runs[0]["visual_tokens"],
        "steps": runs[0]["steps"],
        "flops_per_sample": runs[0]["flops_per_sample"],
        "flops_experts": runs[0]["flops_experts"],
        "latency_ms": float(np.median([run["latency_ms"] for run in runs])),
        "wall_s": float(np.median([run["wall_s"] for run in runs])),
        "difference": difference(runs, ours),
    }


def short_row(runs: list[Record], ours: list[Record]) -> dict[str, Any]:
    """What arena.json holds of a variant of Astrea."""
    return {
        "note": runs[0]["note"],
        **summary([run["average"] for run in runs]),
        "seeds": len(runs),
        "tasks": {task: summary([run["tasks"][task] for run in runs]) for task in TASKS},
        "difference": difference(runs, ours),
    }


def adaptivity_row(runs: list[Record]) -> dict[str, Any]:
    """What one variant of Astrea saves, survives and knows of its experts: points lost, but for load (largest over
    mean), calibration (rank correlation) and tokens (the part that is read). ``std`` has each one's over seeds."""

    def figures(run: Record) -> dict[str, Any]:
        probes = defaultdict(dict, run["probes"])
        masked = [each["average"] for each in probes["masking"].values()]
        agreed, saved = probes["calibration"], probes["saving"]
        if saved and saved["tokens_share"] > WANTED:  # no threshold makes it read less
            saved = {}
        return {
            "load": run["load"].get("max_over_mean"),
            "calibration": agreed.get("rank_correlation"),
            "relative": agreed.get("relative"),
            "per_task": agreed.get("per_task"),
            "tokens": saved.get("tokens_share"),
            "fewer_tokens": -saved["difference"] if saved else None,
            "masked": -float(np.mean(masked)) if masked else None,
            **{fault: probes["robustness"].get("mean_loss", {}).get(fault) for fault in CORRUPTIONS},
        }

    rows = [figures(run) for run in runs if run.get("probes")]
    std = {key: summary([row[key] for row in rows])["std"] for key in rows[0] if None not in [row[key] for row in rows]}
    return {**mean_tree(rows), "std": std, "seeds": len(runs)}


def equal_time_row(runs: list[Record], ours: list[Record]) -> dict[str, Any]:
    """A strategy that was given as much training time as Astrea."""
    return {
        "average": {**summary([run["average"] for run in runs]), "seeds": len(runs)},
        "wall_s": float(np.median([run["wall_s"] for run in runs])),
        "astrea_wall_s": float(np.median([run["wall_s"] for run in ours])) if ours else None,
        "steps": runs[0]["steps"],
        "difference": difference(runs, ours),
    }


def corrected(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rows of one table: the p of each difference to Astrea corrected for their number, as ``p_holm``."""
    chances = {
        name: row["difference"]["p"]
        for name, row in rows.items()
        if name != SELF and row["difference"] is not None and row["difference"]["p"] is not None
    }
    for name, adjusted in holm(chances).items():
        rows[name]["difference"]["p_holm"] = adjusted
    return rows


def difference(runs: list[Record], ours: list[Record]) -> dict[str, Any] | None:
    """These runs minus Astrea's, over the seeds that both have; None where there is no such seed."""
    own = {run["seed"]: run for run in ours}
    shared = [run for run in runs if run["seed"] in own]
    if not shared:
        return None
    theirs = [own[run["seed"]] for run in shared]
    return paired_difference(scores_of(shared), scores_of(theirs), scenes_of([*shared, *theirs]))


def interval(runs: list[Record]) -> dict[str, Any]:
    """How sure the average of these runs is: see `hierarchical_bootstrap`."""
    found = hierarchical_bootstrap(scores_of(runs), scenes_of(runs))
    return {key: found[key] for key in ("low", "high", "over")}


def cur(ours: list[Record], retrained: Mapping[str, list[Record]]) -> dict[str, dict[str, float]]:
    """The conditional utilisation rate of every expert, and the information gap (arXiv 2507.03262).

        CUR = (average - average without the expert) / average, of the same items and seeds

    Returns:
        "masked" (taken away at test time) and "retrained" (never there): expert -> mean CUR; "gap": of either, the
        largest CUR minus the smallest.
    """
    masked: dict[str, list[float]] = defaultdict(list)
    for run in ours:
        probes = run.get("probes") or {}
        clean = (probes.get("robustness") or {}).get("clean")
        for name, change in (probes.get("masking") or {}).items() if clean else ():
            masked[name].append(-change["average"] / clean)
    own = {run["seed"]: run["average"] for run in ours}
    lost = {
        name.removeprefix("without_"): [1 - r["average"] / own[r["seed"]] for r in runs if own.get(r["seed"])]
        for name, runs in retrained.items()
    }
    found = {
        way: {name: float(np.mean(values)) for name, values in each.items() if values}
        for way, each in (("masked", masked), ("retrained", lost))
    }
    return {**found, "gap": {way: max(each.values()) - min(each.values()) for way, each in found.items() if each}}


def scores_of(runs: list[Record]) -> dict[str, np.ndarray]:
    """Task -> scores (S, N) of every seed's items."""
    return {task: np.stack([unpacked_items(run["items"][task]) for run in runs]) for task in TASKS}


def scenes_of(runs: list[Record]) -> Mapping[str, list[int]] | None:
    """Of which scene each item is; None where a run does not say (those from before they did)."""
    found: Mapping[str, list[int]] | None = runs[0].get("scenes")
    return found if all(run.get("scenes") == found for run in runs) else None


def best_other(rivals: Mapping[str, list[Record]], chosen: str | None = None) -> dict[str, Any] | None:
    """The best strategy that is not Astrea, or the one chosen before; ``gap`` is Astrea's mean minus its mean, in
    points."""
    others = [item for item in ranked(rivals) if item[0] != SELF and chosen in (None, item[0])]
    if not others:
        return None
    name, runs = others[0]
    gap = mean_average(rivals[SELF]) - mean_average(runs) if SELF in rivals else None
    return {"name": name, "mean": mean_average(runs), "gap": gap}


def wins(rivals: Mapping[str, list[Record]]) -> int | None:
    """On how many tasks Astrea's mean is above every other strategy's; None without both."""
    if SELF not in rivals or len(rivals) < 2:
        return None
    means = {
        name: {task: float(np.mean([run["tasks"][task] for run in runs])) for task in TASKS}
        for name, runs in rivals.items()
    }
    return sum(all(means[SELF][task] > means[name][task] for name in means if name != SELF) for task in TASKS)
