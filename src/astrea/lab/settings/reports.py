"""What a setting reports of a finished run beside the twelve tasks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from astrea.common.files import finite_or_null
from astrea.common.progress import Reporter
from astrea.data.feature_cache import FeatureCache
from astrea.evaluation.generate import Predictor
from astrea.experts.corruption_kinds import FUNCTIONS, Channels, applies, channels_of
from astrea.experts.protocol import ExpertFeatures
from astrea.fusion.astrea import AstreaFusion
from astrea.fusion.peers.routed import Routed
from astrea.fusion.protocol import FusionStrategy
from astrea.lab.probes.pareto import shares_for
from astrea.lab.probes.probes import PROBE_TASKS, load_bias
from astrea.lab.probes.robustness import changed_test_sets, reliable_share
from astrea.lab.settings.budget import BUDGETS, RULES, Budget, cost_share
from astrea.lab.settings.question_gate import QuestionGate
from astrea.lab.settings.token_budgets import by_token_budget
from astrea.recipes.recipe import Data, World
from astrea.world.evaluation.conflict import conflict_items
from astrea.world.evaluation.contribution import calibration, contributions
from astrea.world.evaluation.runner import EncodedTestSets, Outcome, encode_test_sets, first_items, run_tasks
from astrea.world.evaluation.tasks import VqaItem, build_test_sets
from astrea.world.experts.truth import pixels_from_scenes

ITEMS = 60
"""Of each task, that faults and budgets are measured on."""

REPEATS = 5
"""Of every expert's timing."""

FAULTS = ("wrong_colour", "wrong_class", "mirrored", "half_swapped", "stuck_slots", "late")
"""Kinds of `astrea.experts.corruption_kinds` that are measured. Unless `model.reliability_kinds` names others, training
knows swapped and stuck ones alone."""


@dataclass(frozen=True)
class Measured:
    """A finished run: its model, the test sets with their features, its row of the table, and the world and amounts of
    data that validation is drawn from."""

    model: Any
    tokenizer: Any
    encoded: EncodedTestSets
    outcome: Outcome
    world: World
    data: Data
    cache: FeatureCache
    seed: int

    @property
    def labels(self) -> dict[str, Any]:
        """The names of every expert's channels."""
        return {name: self.model.experts[name].labels for name in self.model.experts.names}

    def asked(self, encoded: EncodedTestSets, masked: tuple[str, ...] = ()) -> Outcome:
        """What becomes of the probed tasks."""
        predictor = Predictor(self.model, self.tokenizer, masked=masked)
        return run_tasks(predictor, encoded, PROBE_TASKS, blind=False, label="report", report=Reporter())

    def average(self, encoded: EncodedTestSets, masked: tuple[str, ...] = ()) -> float:
        """The average over the probed tasks."""
        return self.asked(encoded, masked).average


def conflict(run: Measured) -> dict[str, Any]:
    """Accuracy where two experts disagree about a word of the question or its answer, and where none do (0..100)."""
    items = run.encoded.sets.questions
    split_N = conflict_items(items, run.encoded.questions, run.labels)
    right_N = right(run.outcome, items)
    return {
        "items": int(split_N.sum()),
        "conflict": share_of(right_N, split_N),
        "agreement": share_of(right_N, ~split_N),
    }


def right(outcome: Outcome, items: Sequence[VqaItem]) -> np.ndarray:
    """How right every question was answered (N,), 0..1."""
    task_N = np.array([item.question.task for item in items])
    right_N = np.zeros(len(items))
    for task in set(task_N.tolist()):
        right_N[task_N == task] = outcome.per_item[task]
    return right_N


def share_of(right_N: np.ndarray, which_N: np.ndarray) -> float | None:
    """The mean over some of the questions, 0..100; None where there are none."""
    return 100 * float(right_N[which_N].mean()) if which_N.any() else None


def faults(run: Measured) -> dict[str, Any]:
    """What each kind of fault costs in points: on average over the tasks, and on the questions about which experts
    disagree then (None where there are none); and how often the faulty expert counts as reliable (0..1; None where the
    fusion does not judge).

    Returns:
        {kind: {expert: {"loss", "conflict_loss", "conflict_items", "believed"}}}, without the experts that a kind
        leaves as they are; and "clean".
    """
    few = first_items(run.encoded, PROBE_TASKS, ITEMS)
    sound, items = run.asked(few), few.sets.questions
    found: dict[str, Any] = {"clean": sound.average}
    for kind in FAULTS:
        found[kind] = {}
        for index, (name, labels) in enumerate(run.labels.items()):
            channels = channels_of(labels)
            if not applies(kind, few.questions[name], channels):
                continue
            broken = changed_test_sets(few, name, fault(kind, channels, run.seed))
            share_E = reliable_share(run.model, broken, PROBE_TASKS)
            outcome, split_N = run.asked(broken), conflict_items(items, broken.questions, run.labels)
            found[kind][name] = {
                "loss": sound.average - outcome.average,
                "conflict_loss": share_of(right(sound, items) - right(outcome, items), split_N),
                "conflict_items": int(split_N.sum()),
                "believed": None if share_E is None else float(share_E[index]),
            }
    return found


def fault(kind: str, channels: Channels, seed: int) -> Callable[[ExpertFeatures], ExpertFeatures]:
    """What a kind of fault makes of the features of an expert with these channels, with chance drawn by the seed."""

    def change(part: ExpertFeatures) -> ExpertFeatures:
        return FUNCTIONS[kind](part, channels, torch.Generator().manual_seed(seed))

    return change


def gate_weights(run: Measured) -> dict[str, Any]:
    """Whether gate weights follow what experts contribute, and how far the picture explains them: see
    `astrea.world.evaluation.contribution.calibration`. {} of a fusion that has no gate of Astrea's."""
    bias_E = load_bias(run.model)
    if bias_E is None:
        return {}
    known = contributions(run.model, run.tokenizer, run.encoded, PROBE_TASKS)
    shares = shares_for(Predictor(run.model, run.tokenizer), run.encoded, PROBE_TASKS)
    found: dict[str, Any] = finite_or_null(calibration(run.encoded, shares, known, bias_E))
    return found


def budgets(run: Measured) -> dict[str, Any]:
    """The average, and the part of the experts' arithmetic and time, of every rule at every budget; what experts are
    worth is measured on validation.

    Returns:
        {"all": {...}, "16/2": {rule: {"average", "flops_share", "seconds_share", "experts"}}, ...},
        "worth": {expert: mean nats}. Of "gate", which is there where the strategy weighs experts, "experts" says for
        which share of the questions each is computed.
    """
    names = run.model.experts.names
    sets = build_test_sets(run.world, run.data, split="validation")
    validation = encode_test_sets(run.model, sets, run.cache)
    known = contributions(run.model, run.tokenizer, validation, PROBE_TASKS)
    mean_E = torch.stack([delta_QE.mean(0) for delta_QE in known.values()]).mean(0)
    worth = dict(zip(names, mean_E.tolist(), strict=True))
    sizes = dict(zip(names, run.model.alignment.counts, strict=True))
    flops, seconds = flops_of_each(run), seconds_of_each(run)
    few = first_items(run.encoded, PROBE_TASKS, ITEMS)
    everything = {"average": run.average(few), "flops_share": 1.0, "seconds_share": 1.0}
    found: dict[str, Any] = {"all": everything, "worth": worth, "seconds": seconds}
    for tokens, experts in BUDGETS:
        budget = Budget(tokens, experts)
        row = found[f"{tokens}/{experts}"] = {}
        for rule, order in RULES.items():
            chosen = budget.fill(order(names, worth, run.seed), sizes)
            masked = tuple(name for name in names if name not in chosen)
            row[rule] = {
                "average": run.average(few, masked), "flops_share": cost_share(chosen, flops),
                "seconds_share": cost_share(chosen, seconds), "experts": chosen,
            }  # fmt: skip
        if weighs(run.model.model.fusion):
            gate = QuestionGate(run.model, run.tokenizer, validation.questions, budget, sizes)
            average = run_tasks(gate, few, PROBE_TASKS, blind=False, label="report", report=Reporter()).average
            row["gate"] = {
                "average": average, "flops_share": gate.cost(flops), "seconds_share": gate.cost(seconds),
                "experts": gate.used(),
            }  # fmt: skip
    return found


def weighs(fusion: FusionStrategy) -> bool:
    """Whether experts have weights that depend on the question."""
    return isinstance(fusion, Routed) or (isinstance(fusion, AstreaFusion) and fusion.allocator is not None)


def flops_of_each(run: Measured) -> dict[str, int]:
    """Floating-point operations of each expert looking at one picture."""
    pixels = pixels_from_scenes(run.encoded.sets.pool[:1])
    found = {}
    for name in run.model.experts.names:
        with FlopCounterMode(display=False) as counter:
            run.model.experts(pixels, [name])
        found[name] = counter.get_total_flops()
    return found


@torch.inference_mode()
def seconds_of_each(run: Measured) -> dict[str, float]:
    """Processor seconds of each expert looking at one picture: the fastest of `REPEATS` goes, taken in turns, so that
    what else the machine does falls on all of them."""
    pixels = pixels_from_scenes(run.encoded.sets.pool[:1])
    found = dict.fromkeys(run.model.experts.names, math.inf)
    for _ in range(REPEATS):
        for name in found:
            began = time.process_time()
            run.model.experts(pixels, [name])
            found[name] = min(found[name], time.process_time() - began)
    return found


def token_budgets(run: Measured) -> dict[str, Any]:
    """See `by_token_budget`."""
    return by_token_budget(run.model, run.tokenizer, run.encoded, run.seed)


REPORTS: Mapping[str, Callable[[Measured], dict[str, Any]]] = {
    "conflict": conflict,
    "faults": faults,
    "gate_weights": gate_weights,
    "budgets": budgets,
    "token_budgets": token_budgets,
}
"""By name, as settings ask for them."""
