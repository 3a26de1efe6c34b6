"""The sections of the page: their order, their titles, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from astrea.lab.arena.page.contests import ablations, adaptivity, conditions, curves, strategies, tasks, trials
from astrea.lab.arena.page.experts import shares, without
from astrea.lab.arena.page.origin import made
from astrea.lab.arena.page.probes import calibration, pareto, robustness


@dataclass(frozen=True)
class Part:
    """One section. ``draw`` makes its body (markup), or "" when the arena has nothing for it: then ``missing`` is said
    in its place, and its title stands in the list of what is missing; where ``missing`` is "" too, it is left out.
    ``note`` is markup."""

    anchor: str
    title: str
    draw: Callable[[Mapping[str, Any]], str]
    missing: str
    note: str = ""


_BELOW = 'Differences are "this one minus Astrea" in points of the average: below zero, Astrea is better.'
_SURE = (
    "The 95 % intervals come from drawing the test items anew, the same ones on both sides; seeds are averaged, so an "
    "interval says nothing about other seeds."
)
_CELLS = "No cells for it are finished."
_PROBES = "Astrea's cells were not probed."
_PROBED = "Averages here are over the probed tasks (retrieval is not among them) and fewer items of each"
PARTS = (
    Part(
        "strategies",
        "Strategies",
        strategies,
        _CELLS,
        f"All have the same frozen experts to look through, data, seeds and steps. {_BELOW} {_SURE} FLOPs and latency "
        "are of fusion and the language model's reading of one question; looking through the experts comes on top.",
    ),
    Part(
        "tasks",
        "Twelve tasks",
        tasks,
        _CELLS,
        "Mean and deviation over seeds, 0 to 100. Coloured column by column, from the lowest (pale) to the highest; ★ "
        "is the best of its column.",
    ),
    Part(
        "ablations",
        "Ablations",
        ablations,
        "No ablation is finished.",
        f"Astrea with one ingredient off. {_BELOW} Red: the whole interval is below zero, so the ingredient helps on "
        "this test set; green: above zero; grey: the interval holds zero.",
    ),
    Part(
        "without",
        "Without one expert",
        without,
        "Neither masking nor retraining nor pairs of experts were measured.",
        "The change of the average, in points. Masked: taken away at test time, nothing trained anew (on the probed "
        "tasks, retrieval left out). Trained without: never there, so that the others could learn to fill in (all "
        "tasks). Rank 1 is the expert that is missed most.",
    ),
    Part(
        "conditions",
        "Conditions",
        conditions,
        _CELLS,
        "The average where the pictures are of one condition. Coloured column by column; ★ is the best of its column.",
    ),
    Part(
        "shares",
        "Who is looked at",
        shares,
        "Shares and load were not measured.",
        "Astrea's shares, means over seeds. Per task every condition counts alike, and per condition every task.",
    ),
    Part(
        "calibration",
        "Do shares follow contribution?",
        calibration,
        _PROBES,
        "The contribution of an expert is the loss of the true answer without it minus with it. The rank correlation "
        "of share and contribution is 1 at best, and 0 when shares say nothing.",
    ),
    Part(
        "pareto",
        "Reading fewer tokens",
        pareto,
        _PROBES,
        "Astrea's average when experts with a small share are not read, and the other strategies at the visual tokens "
        f"that they read. {_PROBED} for Astrea's curve; the other strategies' points are of the same tasks, all items.",
    ),
    Part(
        "adaptivity",
        "What adaptivity buys",
        adaptivity,
        _PROBES,
        "Astrea, and what remains of each figure without an ingredient. Tokens read: at the threshold at which that is "
        f"at most 60 %, over all tasks. Costs are points of the average. {_PROBED} but for tokens.",
    ),
    Part(
        "robustness",
        "When an expert breaks",
        robustness,
        _PROBES,
        "Swapped: an expert says what it saw in another picture; frozen: what it saw in one, for ever; constant: all "
        f"its slots say the same; nan: its output is no number. {_PROBED}.",
    ),
    Part(
        "curves",
        "Learning curves",
        curves,
        "No curve was measured.",
        "One line per seed: the average on a small validation set, against seconds of training.",
    ),
    Part(
        "trials",
        "Learning rates tried",
        trials,
        "",
        "A strategy's trials are the learning rates it starts from times 0.5, 1, 2 and 4, one seed each, "
        "scored on the validation split, never the test set. ★ is the best of its row; used is what the strategy's "
        "cells above were trained with.",
    ),
    Part("made", "How it was made", made, "The file does not say."),
)
"""The sections in the order of the page, after the headline."""
