"""From the cells of a folder to one arena.json: means over seeds, differences to Astrea, what each ingredient is worth.

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
from astrea.lab.arena.lr_sweep import KIND, tried
from astrea.lab.arena.run import SCHEMA, unpacked_items
from astrea.lab.arena.statistics import mean_tree, paired_difference, summary
from astrea.lab.probes.pareto import WANTED
from astrea.lab.probes.robustness import CORRUPTIONS
from astrea.world.evaluation.tasks import TASKS

Record = Mapping[str, Any]
"""What a cell's file holds."""

SELF = "astrea"

PROBES = ("masking", "contribution", "calibration", "pareto", "trust")
"""What is taken over from Astrea's probes (see `astrea.lab.probes.probes.probe`), as means over seeds."""


def read_cells(folder: Path, *, warn: Callable[[str], None]) -> list[dict[str, Any]]:
    """The cells of ``folder/cells``, by file name; one that cannot be read is told of and passed over."""
    found = []
    cells = folder / "cells"
    for path in (one for one in (list_folder(cells) if is_folder(cells) else []) if one.suffix == ".json"):
        record = read_cell(path)
        if record is None:
            warn(f"{path.name} is no cell of this version; passed over")
        else:
            found.append(record)
    return found


def read_cell(path: Path) -> dict[str, Any] | None:
    """What one file holds, or None when there is none, or none that this version wrote."""
    try:
        record = read_json(path)
    except AstreaError:
        return None
    return record if isinstance(record, dict) and record.get("schema") == SCHEMA and "digest" in record else None


def collect(records: Iterable[Record]) -> dict[str, Any]:
    """The whole comparison, JSON-able. What was not measured is None or an empty mapping."""
    groups: dict[str, dict[str, list[Record]]] = defaultdict(dict)
    for record in sorted(records, key=lambda r: (r["kind"], r["name"], r["seed"])):
        groups[record["kind"]].setdefault(record["name"], []).append(record)
    rivals = groups["strategy"]
    ours = rivals.get(SELF, [])
    everyone = [record for kind in groups.values() for cells in kind.values() for record in cells]
    probes = [cell.get("probes") or {} for cell in ours]
    return {
        "schema": SCHEMA,
        "tasks": list(TASKS),
        "strategies": {name: strategy_row(cells, ours) for name, cells in ranked(rivals)},
        "best_other": best_other(rivals),
        "wins": wins(rivals),
        "ablations": {name: short_row(cells, ours) for name, cells in ranked(groups["ablation"])},
        "retraining": {
            name.removeprefix("without_"): short_row(cells, ours) for name, cells in groups["retraining"].items()
        },
        "pairs": {name.removeprefix("pair_"): short_row(cells, ours) for name, cells in ranked(groups["pair"])},
        "conditions": {name: mean_tree([cell["conditions"] for cell in cells]) for name, cells in rivals.items()},
        "load": mean_tree([cell["load"] for cell in ours]),
        "shares": mean_tree([cell["shares"] for cell in ours]),
        **{name: mean_tree([probe.get(name) for probe in probes]) for name in PROBES},
        "robustness": {
            name: mean_tree([(cell.get("probes") or {}).get("robustness") for cell in cells])
            for name, cells in {SELF: ours, "without_allocator": groups["ablation"].get("allocator", [])}.items()
            if any(cell.get("probes") for cell in cells)
        },
        "adaptivity": {
            name: adaptivity_row(cells)
            for name, cells in {SELF: ours, **dict(ranked(groups["ablation"]))}.items()
            if any(cell.get("probes") for cell in cells)
        },
        "curves": {
            name: {str(cell["seed"]): cell["curve"] for cell in cells if cell["curve"]}
            for name, cells in rivals.items()
            if any(cell["curve"] for cell in cells)
        },
        "equal_wall": {name: wall_row(cells, ours) for name, cells in ranked(groups["wall"])},
        "trials": tried(groups[KIND], rivals),
        "commit": ", ".join(sorted({record["commit"] for record in everyone if record["commit"]})) or None,
        "machine": everyone[0]["machine"] if everyone else None,
        "machines": len({json.dumps(record["machine"], sort_keys=True) for record in everyone}),
    }


def ranked(cells: Mapping[str, list[Record]]) -> list[tuple[str, list[Record]]]:
    """Contestants from the best mean average to the worst."""
    return sorted(cells.items(), key=lambda item: -mean_average(item[1]))


def mean_average(cells: list[Record]) -> float:
    """The mean over seeds of the average over tasks."""
    return float(np.mean([cell["average"] for cell in cells]))


def strategy_row(cells: list[Record], ours: list[Record]) -> dict[str, Any]:
    """All that is told of one strategy."""
    return {
        "note": cells[0]["note"],
        "average": {**summary([cell["average"] for cell in cells]), "seeds": len(cells)},
        "values": {str(cell["seed"]): cell["average"] for cell in cells},
        "tasks": {task: summary([cell["tasks"][task] for cell in cells]) for task in TASKS},
        "params_trainable": cells[0]["params_trainable"],
        "params_total": cells[0]["params_total"],
        "visual_tokens": cells[0]["visual_tokens"],
        "steps": cells[0]["steps"],
        "flops_per_sample": cells[0]["flops_per_sample"],
        "flops_experts": cells[0]["flops_experts"],
        "latency_ms": float(np.median([cell["latency_ms"] for cell in cells])),
        "wall_s": float(np.median([cell["wall_s"] for cell in cells])),
        "difference": difference(cells, ours),
    }


def short_row(cells: list[Record], ours: list[Record]) -> dict[str, Any]:
    """All that is told of a variant of Astrea."""
    return {
        "note": cells[0]["note"],
        **summary([cell["average"] for cell in cells]),
        "seeds": len(cells),
        "tasks": {task: summary([cell["tasks"][task] for cell in cells]) for task in TASKS},
        "difference": difference(cells, ours),
    }


def adaptivity_row(cells: list[Record]) -> dict[str, Any]:
    """What one variant of Astrea saves, survives and tells of its experts: points lost, but for load (largest over
    mean), calibration (rank correlation) and tokens (the part that is read). ``std`` has each one's over seeds."""

    def told(cell: Record) -> dict[str, Any]:
        probes = defaultdict(dict, cell["probes"])
        masked = [each["average"] for each in probes["masking"].values()]
        agreed, saved = probes["calibration"], probes["saving"]
        if saved and saved["tokens_share"] > WANTED:  # no threshold makes it read less
            saved = {}
        return {
            "load": cell["load"].get("max_over_mean"),
            "calibration": agreed.get("rank_correlation"),
            "relative": agreed.get("relative"),
            "per_task": agreed.get("per_task"),
            "tokens": saved.get("tokens_share"),
            "fewer_tokens": -saved["difference"] if saved else None,
            "masked": -float(np.mean(masked)) if masked else None,
            **{fault: probes["robustness"].get("mean_loss", {}).get(fault) for fault in CORRUPTIONS},
        }

    rows = [told(cell) for cell in cells if cell.get("probes")]
    std = {key: summary([row[key] for row in rows])["std"] for key in rows[0] if None not in [row[key] for row in rows]}
    return {**mean_tree(rows), "std": std, "seeds": len(cells)}


def wall_row(cells: list[Record], ours: list[Record]) -> dict[str, Any]:
    """A strategy that was given as much training time as Astrea."""
    return {
        "average": {**summary([cell["average"] for cell in cells]), "seeds": len(cells)},
        "wall_s": float(np.median([cell["wall_s"] for cell in cells])),
        "astrea_wall_s": float(np.median([cell["wall_s"] for cell in ours])) if ours else None,
        "steps": cells[0]["steps"],
        "difference": difference(cells, ours),
    }


def difference(cells: list[Record], ours: list[Record]) -> dict[str, float] | None:
    """These cells minus Astrea's, over the seeds that both have; None where there is no such seed."""
    own = {cell["seed"]: cell for cell in ours}
    shared = [cell for cell in cells if cell["seed"] in own]
    if not shared:
        return None

    def scores(some: list[Record]) -> dict[str, np.ndarray]:
        return {task: np.stack([unpacked_items(cell["items"][task]) for cell in some]) for task in TASKS}

    return paired_difference(scores(shared), scores([own[cell["seed"]] for cell in shared]))


def best_other(rivals: Mapping[str, list[Record]]) -> dict[str, Any] | None:
    """The best strategy that is not Astrea; ``gap`` is Astrea's mean minus its mean, in points."""
    others = [item for item in ranked(rivals) if item[0] != SELF]
    if not others:
        return None
    name, cells = others[0]
    gap = mean_average(rivals[SELF]) - mean_average(cells) if SELF in rivals else None
    return {"name": name, "mean": mean_average(cells), "gap": gap}


def wins(rivals: Mapping[str, list[Record]]) -> int | None:
    """On how many tasks Astrea's mean is above every other strategy's; None without both."""
    if SELF not in rivals or len(rivals) < 2:
        return None
    means = {
        name: {task: float(np.mean([cell["tasks"][task] for cell in cells])) for task in TASKS}
        for name, cells in rivals.items()
    }
    return sum(all(means[SELF][task] > means[name][task] for name in means if name != SELF) for task in TASKS)
