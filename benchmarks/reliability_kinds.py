"""Who is believed when an expert is wrong in a way that nobody was trained on.

    python benchmarks/reliability_kinds.py

The reliability head is trained anew on the bundled model's experts, once for each group of kinds of corruption
(`astrea.experts.corruption_names`), on all kinds but that group's, and measured on that group's alone: how often the
faulty expert is believed, and how often the sound ones beside it are. ``today`` is the head as recipes train it, on
another picture and stuck slots. ``words`` learns from sound experts alone (`astrea.experts.word_agreement`), so every
kind is unknown to it. Nothing but experts, adapters and heads is run.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.alignment.alignment import Alignment
from astrea.common.files import write_json_atomic
from astrea.common.progress import Reporter, TerminalReporter
from astrea.common.provenance import commit, machine
from astrea.experts.corruption import draw_experts
from astrea.experts.corruption_kinds import FUNCTIONS, Labels, applies, channels_of, corrupt_by_kind
from astrea.experts.corruption_names import GROUPS, KINDS
from astrea.experts.protocol import ExpertFeatures, index_select
from astrea.experts.word_agreement import learn_agreement
from astrea.fusion.reliability import ReliabilityHead, select_reliable
from astrea.fusion.reliability_loss import CORRUPTED
from astrea.model.loading import load_model
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.world.dataset import features_of, scenes_of

RESULTS = Path(__file__).resolve().parent / "results" / "reliability_kinds.json"
RATE = 2e-3
DROPOUT = 0.3
"""Share of training pictures that lack an expert, as in the recipes."""
TODAY = ("swapped", "stuck_slots")

WORDS = {"words": False, "words_at_once": True}
"""Trials of agreement of words, and whether all experts are judged at once."""

Features = Mapping[str, ExpertFeatures]
Judge = Callable[[Features], Tensor]
"""Which experts (B, E) are believed about some pictures."""


def trained_head(
    alignment: Alignment, features: Features, labels: Mapping[str, Labels], kinds: Sequence[str], steps: int, batch: int
) -> ReliabilityHead:
    """A head that has learned to tell these kinds."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    experts, count = len(features), len(next(iter(features.values())).tokens)
    head = ReliabilityHead(alignment.width, experts)
    optimizer = torch.optim.AdamW(head.parameters(), RATE, weight_decay=0.01)
    for step in range(steps):
        some = index_select(features, torch.randperm(count, generator=generator)[:batch])
        size = min(batch, count)
        drawn = draw_experts(size, experts, CORRUPTED, generator)
        lost = draw_experts(size, experts, DROPOUT, generator)
        some, faulty = corrupt_by_kind(some, labels, drawn, kinds, generator)
        present, sound = (each.unsqueeze(1) != torch.arange(experts) for each in (lost, faulty))
        with torch.no_grad():
            matrix = alignment(some, present)
        agreements = head.agreements(matrix)
        head.observe(agreements)
        loss = F.binary_cross_entropy_with_logits(head(matrix, agreements)[present], sound[present].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - (step + 1) / steps)
    return head


def judged_by(alignment: Alignment, head: ReliabilityHead) -> Judge:
    """What a head believes."""

    @torch.no_grad()
    def judge(features: Features) -> Tensor:
        every = torch.ones(len(features), dtype=torch.bool)
        return select_reliable(head, alignment(features, None), every)

    return judge


def believed(judge: Judge, features: Features) -> dict[str, float]:
    """How often each expert is believed, 0..1."""
    return dict(zip(features, judge(features).double().mean(0).tolist(), strict=True))


def faulty_rates(
    judge: Judge, features: Features, labels: Mapping[str, Labels], kinds: Sequence[str]
) -> dict[str, Any]:
    """Of each kind: how often the faulty expert is believed, for each that can be so, and how often the others are."""
    found: dict[str, Any] = {}
    for kind in kinds:
        rows: dict[str, dict[str, float]] = {"faulty": {}, "beside": {}}
        for name, part in features.items():
            channels = channels_of(labels[name])
            if applies(kind, part, channels):
                wrong = FUNCTIONS[kind](part, channels, torch.Generator().manual_seed(1))
                rates = believed(judge, {**features, name: wrong})
                rows["faulty"][name] = rates.pop(name)
                rows["beside"][name] = sum(rates.values()) / len(rates)
        found[kind] = {**rows, **{f"mean_{side}": sum(each.values()) / len(each) for side, each in rows.items()}}
    return found


def measure(recipe: Recipe, model: Any, chosen: argparse.Namespace, report: Reporter) -> dict[str, Any]:
    """Agreement of words and today's head on every kind, and a head for each group that is held out."""
    training, test = (
        features_of(model.experts, list(scenes_of(split, count, recipe.world)))
        for split, count in (("train", chosen.train), ("validation", chosen.test))
    )
    labels = {name: model.experts[name].labels for name in model.experts.names}
    alignment = model.alignment
    found = {}
    trials: dict[str, tuple[Sequence[str], Sequence[str]]] = {
        **dict.fromkeys(WORDS, ((), KINDS)),
        "today": (TODAY, KINDS),
        **{name: (without(group), group) for name, group in GROUPS.items()},
    }
    wanted = chosen.trials or list(trials)
    for number, name in enumerate(wanted, 1):
        kinds, tested = trials[name]
        started = time.process_time()
        if kinds:
            head = trained_head(alignment, training, labels, kinds, chosen.steps, chosen.batch)
            judge = judged_by(alignment, head)
        else:
            judge = partial(learn_agreement(training, labels).believed, margin=1.0, at_once=WORDS[name])
        found[name] = {
            "trained_on": list(kinds),
            "sound": believed(judge, test),
            "kinds": faulty_rates(judge, test, labels, tested),
            "seconds": time.process_time() - started,
        }
        report.track("unknown kinds", number, len(wanted), name)
    return found


def without(group: Sequence[str]) -> tuple[str, ...]:
    """All kinds but those of a group."""
    return tuple(kind for kind in KINDS if kind not in group)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write the results; returns what was written."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description="Who is believed when an expert is wrong in an unknown way.")
    parser.add_argument("--train", type=int, default=1600, help="scenes to learn from")
    parser.add_argument("--test", type=int, default=400, help="scenes to measure on")
    parser.add_argument("--steps", type=int, default=300, help="of training, for each head")
    parser.add_argument("--batch", type=int, default=128, help="pictures per step")
    names = (*WORDS, "today", *GROUPS)
    parser.add_argument("--trials", nargs="*", choices=names, help="only these; by default all")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    chosen = parser.parse_intermixed_args(words)
    recipe = load_recipe(Recipe, "tiny")
    torch.set_num_threads(recipe.threads)
    model, _ = load_model("shipped")
    with TerminalReporter() as report:
        trials = measure(recipe, model.eval(), chosen, report)
    results = {
        "command": shlex.join(["python", "benchmarks/reliability_kinds.py", *words]),
        "commit": commit(),
        **machine(),
        "trials": trials,
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(chosen.out, results)
    for name, trial in trials.items():
        print(f"{name}: sound believed {sum(trial['sound'].values()) / len(trial['sound']):.1%}")
        for kind, rates in trial["kinds"].items():
            print(f"  {kind}: faulty believed {rates['mean_faulty']:.1%}, others beside it {rates['mean_beside']:.1%}")
    print(f"results: {chosen.out}")
    return results


if __name__ == "__main__":
    main()
