"""One run of the arena: a variant with a seed, trained, evaluated and kept as one small JSON file.

    python -m astrea.lab.arena.run SPEC.json OUT.json

executes one in a process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from astrea.common.errors import AstreaError
from astrea.common.files import finite_or_null, sha256_file, write_json_atomic
from astrea.common.paths import file_guard, read_json
from astrea.common.progress import SILENT, Reporter, TerminalReporter
from astrea.common.provenance import commit, machine
from astrea.data.feature_cache import FeatureCache, canonical_json
from astrea.evaluation.generate import Predictor
from astrea.lab.arena.cost import flops_of_experts, flops_per_sample, latency_ms
from astrea.lab.arena.first_runs import as_first_written
from astrea.lab.arena.lr_sweep import KIND
from astrea.lab.arena.sealed import OPEN, VALIDATION, TestSet
from astrea.lab.arena.training import Trained, keep, kept_training, train_one
from astrea.lab.arena.variants import CURVES, Variant
from astrea.lab.probes.probes import load_with_entropy, probe
from astrea.lab.settings.reports import REPORTS, Measured
from astrea.model.components import CARD, components_folder
from astrea.model.loading import load_model
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Data, Recipe, World
from astrea.recipes.renamed import with_old_names
from astrea.training.plan import plan_stages
from astrea.training.sources import open_cache
from astrea.training.stage_runner import NOT_TRAINING
from astrea.world.evaluation.runner import (
    EncodedTestSets,
    Outcome,
    condition_scores,
    encode_test_sets,
    run_tasks,
    scene_of,
)
from astrea.world.evaluation.tasks import CAPTION_TASKS, TASKS, build_test_sets
from astrea.world.scenes.vocabulary import CONDITIONS

SCHEMA = 1
"""To be raised whenever code, or another default of the configuration, gives other results for the same recipe."""

PROBED = {
    "strategy": ("astrea",),
    "ablation": (
        *("allocator", "allocator_and_dropout", "trust", "question", "load_bias", "contribution", "expert_dropout"),
        *("with_thrift", "with_confidence", "with_lies"),
    ),
}
"""By kind, the variants that are also masked, corrupted and so on (see `astrea.lab.probes.probes`): what their
ingredient is for shows there rather than in the average."""

FIRST_NAMES = {"neutral": "tiny"}
"""Recipe -> the name that its runs are known by: the first were made before it was there, as runs of that other recipe
with ``pretrain=FOLDER model.word_match=0``."""

ASTREA = 8
"""The same for Astrea alone and its ablations: the others need not run again when its own code or defaults change."""

MANY = 12
"""How many times the test sets that contributions are measured on. In one condition they are small differences: shares
that agreed with them at 0.73 on 200 questions per task agreed at 0.79 on 600 and at 0.82 on 1,200."""

CURVE_EVERY = 60
"""Optimizer steps between two points of a curve."""


@dataclass(frozen=True)
class Run:
    """What is to be measured: a variant and a seed, on a base recipe with the overrides of the command line.

    A seed draws the training pictures and their questions, their order, and the weights that training starts from;
    test: what it is measured on, the same for every seed. reports: what is told of it beside the twelve tasks (see
    `astrea.lab.settings.reports`).
    """

    recipe: str
    base: tuple[str, ...]
    variant: Variant
    seed: int
    test: TestSet = OPEN
    reports: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """The name of its file, without the ending."""
        return f"{self.variant.kind}-{self.variant.name}-{self.seed}"

    def resolve(self) -> Recipe:
        """The recipe that is trained: one thread, since runs are executed side by side.

        Raises:
            AstreaError: the variant does not fit the base recipe, or a part of it is unknown here.
        """
        return self._changed(self.base_recipe())

    def _changed(self, own: Recipe) -> Recipe:
        then = [*self.variant.overrides, f"seed={self.seed}", "threads=1"]
        if self.seed != own.seed:
            then.append(f"world.seed={own.world.seed + self.seed - own.seed}")
        # Weights that an ablation leaves without effect stay: runs that were made before are known by them.
        return load_recipe(Recipe, self.recipe, self.base, then=then, saved=True)

    def base_recipe(self) -> Recipe:
        """The recipe that the variant changes."""
        return load_recipe(Recipe, self.recipe, self.base)

    def test_world(self) -> World:
        """The world that test pictures are drawn from, the same for every seed and variant."""
        return self.test.world(self.base_recipe().world)

    def digest(self) -> str:
        """sha256 of all that the run's scores depend on.

        Raises:
            AstreaError: see `resolve` and `digest`.
        """
        return self.digests()[0]

    def digests(self) -> tuple[str, ...]:
        """What a file of this run may be known by: `digest`, and what it was for the first runs, whose recipes said
        more (see `astrea.lab.arena.first_runs`) and whose seeds all had the first one's training pictures.

        Raises:
            AstreaError: see `digest`.
        """
        own = self.base_recipe()
        recipe = self._changed(own)
        test = None if self.variant.kind == KIND else self.test
        now = digest(recipe, test, self.test.world(own.world), self.reports)
        if self.test != OPEN or self.reports:  # the first runs knew of neither
            return (now,)
        world = recipe.world.model_copy(update={"seed": own.world.seed})
        return now, digest(recipe.model_copy(update={"world": world}), written=as_first_written)

    def spec(self, *, cache: Path, work: Path, models: Path | None = None) -> dict[str, Any]:
        """What `measure` needs, JSON-able. cache: kept features. work: where temporary run folders may lie. models:
        where trained models are kept, if this run's is to be."""
        return {
            **asdict(self),
            "cache": str(cache),
            "work": str(work),
            "models": None if models is None else str(models),
        }

    @staticmethod
    def of(spec: Mapping[str, Any]) -> Run:
        """The run that a spec describes."""
        fields = spec["variant"]
        variant = Variant(fields["name"], fields["kind"], tuple(fields["overrides"]), fields["note"])
        return Run(
            spec["recipe"], tuple(spec["base"]), variant, spec["seed"], TestSet(**spec["test"]), tuple(spec["reports"])
        )


def digest(
    recipe: Recipe,
    test: TestSet | None = None,
    world: World | None = None,
    reports: Sequence[str] = (),
    written: Callable[[Mapping[str, Any]], dict[str, Any]] = dict,
) -> str:
    """sha256 of all that a run's scores depend on: the recipe but for what it is computed on, the parts, the schema,
    and what it is measured on where that is not the test split of the recipe's own world.

    Args:
        test: None = what a model is, wherever it is measured. world: that test pictures are drawn from. written: from
            the recipe's plain data, under old names, to how it was written down.

    Raises:
        AstreaError: the folder of pretrained parts has no card.
    """
    parts = "scratch"
    if recipe.pretrain != "scratch":
        card = components_folder(recipe.pretrain) / CARD
        with file_guard(card):
            parts = sha256_file(card)
    # Without what stands at its default: a new key leaves the runs that were made before it as they are.
    dumped = recipe.model_dump(mode="json", exclude={"threads", "pretrain", "runtime"}, exclude_defaults=True)
    dumped["name"] = FIRST_NAMES.get(recipe.name, recipe.name)
    # Under the keys' first names, for the same reason.
    what = {"recipe": written(with_old_names(dumped)), "parts": parts, "schema": SCHEMA}
    if recipe.model.strategy == "astrea":
        what["astrea"] = ASTREA
    if test is not None and test.split != OPEN.split:
        what["split"] = test.split
    if world is not None and world.seed != recipe.world.seed:
        what["test_seed"] = world.seed
    if reports:
        what["reports"] = list(reports)
    return hashlib.sha256(canonical_json(what).encode()).hexdigest()


def measure(spec: Mapping[str, Any], report: Reporter = SILENT) -> dict[str, Any]:
    """Train one run, or take its model where that was kept, and evaluate it; returns what its file holds.

    Args:
        spec: see `Run.spec`.

    Raises:
        AstreaError: anything the user can correct.
    """
    run = Run.of(spec)
    recipe = run.resolve()
    with tempfile.TemporaryDirectory(prefix=f"{run.stem}-", dir=spec.get("work")) as folder:
        kept = Path(spec["models"]) / run.stem if spec.get("models") and run.test.keeps_models else None
        trained = kept_training(kept, digest(recipe))
        if trained is None:
            curve = CURVE_EVERY if run.variant.kind == "strategy" and run.variant.name in CURVES else 0
            trained = train_one(recipe, Path(folder), cache=Path(spec["cache"]), curve=curve, report=report)
            if kept is not None:
                keep(trained, kept, digest(recipe))
        # The user asked for this recipe: what it names has been imported for training already.
        model, processor = load_model(trained.model, trust_remote_code=True)
    cache = open_cache(recipe, Path(spec["cache"]))
    return evaluated(run, recipe, trained, model, processor.tokenizer, cache, report)


def evaluated(
    run: Run, recipe: Recipe, trained: Trained, model: Any, tokenizer: Any, cache: FeatureCache,
    report: Reporter = SILENT,
) -> dict[str, Any]:  # fmt: skip
    """What a run's file holds of a trained model."""
    who = run.variant
    # The sweep chooses settings, so it never sees a test set.
    split, world = VALIDATION if who.kind == KIND else run.test.split, run.test_world()
    encoded = encode_test_sets(model, build_test_sets(world, recipe.data, split=split), cache, report)
    outcome = run_tasks(Predictor(model, tokenizer), encoded, TASKS, blind=False, label="evaluate", report=report)
    measured = Measured(model, tokenizer, encoded, outcome, world, recipe.data, cache, run.seed)
    reported = {name: REPORTS[name](measured) for name in run.reports}
    names = model.experts.names
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    made = {
        "schema": SCHEMA,
        "name": who.name,
        "kind": who.kind,
        "seed": run.seed,
        "split": split,
        "test_seed": world.seed,
        "note": who.note,
        "overrides": list(who.overrides),
        "digest": run.digest(),
        "trained": digest(recipe),
        "average": outcome.average,
        "tasks": outcome.scores,
        "items": {task: packed_items(task, values) for task, values in outcome.per_item.items()},
        "scenes": scene_numbers(encoded, TASKS),
        "conditions": condition_scores(encoded, outcome),
        "shares": shares_table(encoded, outcome, names),
        "load": load_with_entropy(outcome.shares, names),
        "params_trainable": sum(count for name, count in sizes.items() if name in trained.learned),
        "params_total": sum(sizes.values()),
        "visual_tokens": model.num_visual_tokens,
        "steps": sum(plan.schedule.steps for plan in plan_stages(recipe)),
        "tune_steps": recipe.tune.steps,
        "flops_per_sample": flops_per_sample(model, tokenizer, encoded),
        "flops_experts": flops_of_experts(model, encoded),
        "latency_ms": round(latency_ms(model, tokenizer, encoded), 3),
        "seconds": trained.seconds,
        "wall_s": round(sum(s for name, s in trained.seconds.items() if name not in NOT_TRAINING), 2),
        "curve": trained.curve,
        "probes": probes_of(run, model, tokenizer, encoded, outcome, (world, recipe.data, split), cache),
        "reports": rounded(reported),
        "machine": machine(),
        "commit": commit(),
    }
    found: dict[str, Any] = finite_or_null(made)
    return found


def packed_items(task: str, values: np.ndarray) -> str | list[float]:
    """Per-item scores, small: one character for a score of 0 or 1, numbers (0..1) for captions."""
    if task in CAPTION_TASKS:
        return [round(float(value), 3) for value in values]
    return "".join("1" if value >= 0.5 else "0" for value in values)


def unpacked_items(packed: str | list[float]) -> np.ndarray:
    """What `packed_items` packed."""
    return np.array([float(value) for value in packed])


def scene_numbers(encoded: EncodedTestSets, tasks: Sequence[str]) -> dict[str, list[int]]:
    """Of which scene each item of a task is, the same number in every task; near-duplicates of a scene are counted as
    the scene that they were made of."""
    numbers: dict[int, int] = {}
    return {
        task: [numbers.setdefault(scene.spec.seed, len(numbers)) for scene in scene_of(encoded, task)] for task in tasks
    }


def shares_table(
    encoded: EncodedTestSets, outcome: Outcome, names: list[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Mean share of every expert by task and condition of the picture, where there is such an item."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for task, shares_BE in outcome.shares.items():
        conditions = np.array([scene.condition for scene in scene_of(encoded, task)])
        table[task] = {
            condition: {
                name: round(float(mean), 4)
                for name, mean in zip(names, shares_BE.numpy()[conditions == index].mean(0), strict=True)
            }
            for index, condition in enumerate(CONDITIONS)
            if (conditions == index).any()
        }
    return table


def probes_of(
    run: Run,
    model: Any,
    tokenizer: Any,
    encoded: EncodedTestSets,
    outcome: Outcome,
    where: tuple[World, Data, str],
    cache: FeatureCache,
) -> dict[str, Any] | None:
    """Masking, contribution, pruning and robustness of the variants that are probed; None of the others, and where a
    setting has reports of its own, which ask for less (with sixteen experts probing takes longer than training).

    Args:
        where: the world, the amount of test data and the split that the run is measured on.
    """
    if run.reports or run.variant.name not in PROBED.get(run.variant.kind, ()):
        return None
    world, data, split = where
    more = {"test_questions": data.test_questions * MANY, "test_captions": data.test_captions * MANY}
    sets = build_test_sets(world, data.model_copy(update=more | {"test_retrieval_groups": 1}), split=split)
    many = encode_test_sets(model, sets, cache)
    found = probe(model, tokenizer, encoded, outcome, many=many, report=Reporter())
    # The record has shares and load already.
    kept: dict[str, Any] = rounded({name: part for name, part in found.items() if name not in ("shares", "load")})
    return kept


def rounded(value: Any) -> Any:
    """The same with four decimals, which keeps the file small."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return round(value, 4) if isinstance(value, float) else value


def main(arguments: list[str] | None = None) -> int:
    """One run from its spec to its file. The exit status is 0 when the file is there."""
    parser = argparse.ArgumentParser(prog="python -m astrea.lab.arena.run", description="Execute one run of the arena.")
    parser.add_argument("spec", type=Path, metavar="SPEC.json")
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--leash", action="store_true", help="end when standard input does")
    chosen = parser.parse_args(arguments)
    if chosen.leash:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with TerminalReporter() as report:
            made = measure(read_json(chosen.spec), report)
        with file_guard(chosen.out):
            write_json_atomic(chosen.out, made)
    except AstreaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _end_with_parent() -> None:
    """A killed arena leaves no workers behind: its end of the pipe closes with it."""
    while os.read(0, 1):  # not through sys.stdin, whose lock would be held when the interpreter ends
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
