"""Astrea reading 60 % of the visual tokens against concat of equal shares that reads them all, on many questions.

    python benchmarks/fewer_tokens.py --seeds 0 1 2 3 4

The arena's test set is small: what few tokens cost there is less than one seed's error. Here both are trained as in the
arena's short setting and asked six times as much. Every model's scores are a file of their own in ``--out``, so that a
killed run goes on and several processes may share the seeds; the summary is made from all files that are there.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from astrea.common.files import write_json_atomic
from astrea.common.progress import Reporter, TerminalReporter
from astrea.common.provenance import commit, machine
from astrea.data.feature_cache import FeatureCache
from astrea.evaluation.generate import Predictor
from astrea.lab.arena.bootstrap import paired_difference
from astrea.lab.arena.collect import scenes_of
from astrea.lab.arena.run import Run, packed_items, scene_numbers, unpacked_items
from astrea.lab.arena.statistics import summary
from astrea.lab.arena.variants import choose, variants
from astrea.lab.probes.pareto import WANTED, reading_from, threshold_for
from astrea.lab.probes.probes import PROBE_TASKS
from astrea.model.loading import load_model
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.trainer import train
from astrea.world.evaluation.runner import Outcome, encode_test_sets, run_tasks
from astrea.world.evaluation.tasks import TASKS, build_test_sets

RESULTS = Path(__file__).resolve().parent / "results" / "fewer_tokens"
EQUAL = "allocator"
"""The arena's name for concat of equal shares, which the others are compared with."""

SHORT = ("data.train_scenes=3000", "align.steps=120", "fuse.steps=30", "tune.steps=150")
MANY = ("data.test_questions=600", "data.test_captions=360", "data.test_retrieval_groups=60")


def measure(run: Run, cache: Path, report: Reporter) -> dict[str, Any]:
    """Train one variant; its scores with all tokens and, where it can read fewer, with those."""
    recipe = run.resolve()
    torch.set_num_threads(recipe.threads)
    with tempfile.TemporaryDirectory() as folder:
        model, processor = load_model(train(recipe, Path(folder) / "run", cache=cache, report=report))
    predictor = Predictor(model, processor.tokenizer)
    encoded = encode_test_sets(model, build_test_sets(run.test_world(), recipe.data), FeatureCache(cache), report)
    rows = {"all": run_tasks(predictor, encoded, TASKS, blind=False, label="all tokens", report=report)}
    threshold, share = threshold_for(predictor, encoded, PROBE_TASKS)
    if share <= WANTED:
        with reading_from(model.fusion, threshold):
            rows["fewer"] = run_tasks(predictor, encoded, TASKS, blind=False, label="fewer tokens", report=report)
    return {
        "name": run.variant.name,
        "seed": run.seed,
        "digest": run.digest(),
        "tokens_share": share,
        "scenes": scene_numbers(encoded, TASKS),
        **{name: scores_of(outcome) for name, outcome in rows.items()},
        "commit": commit(),
        **machine(),
    }


def scores_of(outcome: Outcome) -> dict[str, Any]:
    """Average, scores by task and by item."""
    items = {task: packed_items(task, values) for task, values in outcome.per_item.items()}
    return {"average": outcome.average, "tasks": outcome.scores, "items": items}


def compared(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and differences to concat of equal shares with all tokens over the seeds that both have."""
    by_name: dict[str, dict[int, Mapping[str, Any]]] = {}
    for run in runs:
        by_name.setdefault(run["name"], {})[run["seed"]] = run
    equal = by_name.get(EQUAL, {})
    found = {}
    for name, own in by_name.items():
        shared = sorted(set(own) & set(equal))
        row: dict[str, Any] = {
            "seeds": len(own),
            "tokens_share": float(np.mean([c["tokens_share"] for c in own.values()])),
        }
        for way in ("all", "fewer"):
            if not all(way in run for run in own.values()):
                continue
            row[way] = summary([run[way]["average"] for run in own.values()])
            row[way]["tasks"] = {t: float(np.mean([run[way]["tasks"][t] for run in own.values()])) for t in TASKS}
            if shared:
                ours, theirs = stacked([own[s][way] for s in shared]), stacked([equal[s]["all"] for s in shared])
                scenes = scenes_of([*(own[s] for s in shared), *(equal[s] for s in shared)])
                row[way]["minus_equal"] = {**paired_difference(ours, theirs, scenes), "seeds": len(shared)}
        found[name] = row
    return found


def stacked(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Scores of all items, task -> (S, N)."""
    return {task: np.stack([unpacked_items(row["items"][task]) for row in rows]) for task in TASKS}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure what is missing, summarise, print, and write the results; returns the summary."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description="What reading 60 % of the tokens costs against equal shares.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--names", nargs="+", default=[EQUAL, "astrea"], choices=[EQUAL, "astrea"])
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder of the models' scores; the summary is beside it"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to the recipe")
    chosen = parser.parse_intermixed_args(words)
    base = (*SHORT, *MANY, *chosen.overrides)
    known = variants(load_recipe(Recipe, "tiny", base))
    everyone = choose(known, ",".join(chosen.names))
    chosen.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache, TerminalReporter() as report:
        for run in (Run("tiny", base, each, seed) for seed in chosen.seeds for each in everyone):
            file = chosen.out / f"{run.variant.name}-{run.seed}.json"
            if not (file.exists() and json.loads(file.read_text())["digest"] in run.digests()):
                write_json_atomic(file, measure(run, Path(cache), report))
    who = {each.name: each for each in known}
    found = [json.loads(file.read_text()) for file in sorted(chosen.out.glob("*-*.json"))]
    # Other seeds may have been measured before, but not with other settings.
    runs = [c for c in found if c["digest"] in Run("tiny", base, who[c["name"]], c["seed"]).digests()]
    results = {
        "command": shlex.join(["python", "benchmarks/fewer_tokens.py", *words]),
        "commit": ", ".join(sorted({run["commit"] for run in runs if run["commit"]})) or None,
        **machine(),
        "items": {task: len(unpacked_items(runs[0]["all"]["items"][task])) for task in TASKS},
        "contestants": compared(runs),
    }
    write_json_atomic(chosen.out.with_suffix(".json"), results)
    for name, row in results["contestants"].items():
        scores = {
            way: (round(row[way]["mean"], 2), row[way].get("minus_equal")) for way in ("all", "fewer") if way in row
        }
        print(f"{name}: {row['seeds']} seeds, {scores}")
    print(f"results: {chosen.out.with_suffix('.json')}")
    return results


if __name__ == "__main__":
    main()
