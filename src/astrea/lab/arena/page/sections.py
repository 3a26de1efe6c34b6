"""The sections of the page: their order, their titles, and what each says above its tables and charts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from astrea.lab.arena.page.blocks import Block
from astrea.lab.arena.page.comparisons import ablations, conditions, strategies, tasks
from astrea.lab.arena.page.experts import shares, without
from astrea.lab.arena.page.learning import curves, lr_sweep
from astrea.lab.arena.page.origin import made
from astrea.lab.arena.page.probes import adaptivity, calibration, pareto, robustness
from astrea.lab.arena.page.settings import settings


@dataclass(frozen=True)
class Section:
    """One section.

    blocks: makes its body. Where the arena has nothing for it, ``missing`` stands in its place and its title in the
    list of what is missing; where ``missing`` is "" too, the section is left out. note: stands under the title.
    """

    anchor: str
    title: str
    blocks: Callable[[Mapping[str, Any]], Sequence[Block]]
    missing: str
    note: str = ""


_BELOW = 'Differences are "this one minus Astrea" in points of the average: below zero, Astrea is better.'
_INTERVALS = (
    "The 95 % intervals are a bootstrap over seeds and scenes (all items of a scene together), the same ones on both "
    "sides; runs that do not say which scenes they were measured on have theirs over seeds and items. p is corrected "
    "for the number of rows (Holm)."
)
_NO_RUNS = "No runs for it are finished."
_NO_PROBES = "Astrea's runs were not probed."
_PROBED = "Averages here are over the probed tasks (retrieval is not among them) and fewer items of each"

SECTIONS = (
    Section(
        "strategies",
        "Strategies",
        strategies,
        _NO_RUNS,
        f"All have the same frozen experts, data, seeds and steps. {_BELOW} {_INTERVALS} FLOPs and latency are of "
        "fusion and the language model's reading of one question; the experts' own come on top.",
    ),
    Section(
        "tasks",
        "Twelve tasks",
        tasks,
        _NO_RUNS,
        "Mean and deviation over seeds, 0 to 100. Coloured column by column, from the lowest (pale) to the highest; ★ "
        "is the best of its column.",
    ),
    Section(
        "ablations",
        "Ablations",
        ablations,
        "No ablation is finished.",
        f"Astrea with one ingredient off. {_BELOW} Red: the whole interval is below zero, so the ingredient helps on "
        "this test set; green: above zero; grey: the interval holds zero.",
    ),
    Section(
        "without",
        "Without one expert",
        without,
        "Neither masking nor retraining nor pairs of experts were measured.",
        "The change of the average, in points. Masked: taken away at test time, nothing trained anew (on the probed "
        "tasks, retrieval left out). Trained without: never there, so that the others could learn to fill in (all "
        "tasks). Rank 1 is the expert that is missed most. CUR, the conditional utilisation rate (arXiv 2507.03262): "
        "the part of the average that is lost.",
    ),
    Section(
        "conditions",
        "Conditions",
        conditions,
        _NO_RUNS,
        "The average where the pictures are of one condition. Coloured column by column; ★ is the best of its column.",
    ),
    Section(
        "shares",
        "Gate weights",
        shares,
        "Gate weights and load were not measured.",
        "The weights that Astrea's gate gives to the experts, means over seeds. Per task every condition counts alike, "
        "and per condition every task.",
    ),
    Section(
        "calibration",
        "Do gate weights follow contribution?",
        calibration,
        _NO_PROBES,
        "The contribution of an expert is the loss of the true answer without it minus with it. The rank correlation "
        "of gate weight and contribution is 1 at best, and 0 when gate weights say nothing.",
    ),
    Section(
        "pareto",
        "Reading fewer tokens",
        pareto,
        _NO_PROBES,
        "Astrea's average when tokens that score below a threshold are not read, and the other strategies at the "
        f"visual tokens that they read. {_PROBED} for Astrea's curve; the other strategies' points are of the same "
        "tasks, all items.",
    ),
    Section(
        "adaptivity",
        "What adaptivity buys",
        adaptivity,
        _NO_PROBES,
        "Astrea, and what remains of each figure without an ingredient. Tokens read: at the threshold at which that is "
        f"at most 60 %, over all tasks. Costs are points of the average. {_PROBED} but for tokens.",
    ),
    Section(
        "robustness",
        "When an expert breaks",
        robustness,
        _NO_PROBES,
        "Swapped: an expert's features are those of another picture; frozen: those of one picture, for ever; constant: "
        f"all its tokens are alike; nan: its output is no number. {_PROBED}.",
    ),
    Section(
        "curves",
        "Learning curves",
        curves,
        "No curve was measured.",
        "One line per seed: the average on a small validation set, against seconds of training.",
    ),
    Section(
        "lr-sweep",
        "Learning rates tried",
        lr_sweep,
        "",
        "A strategy's learning rates times 0.5, 1, 2 and 4, one seed each, scored on the validation split, never the "
        "test set. ★ is the best of its row; used is what the strategy's runs above were trained with.",
    ),
    Section(
        "setting",
        "In this setting",
        settings,
        "",
        "Questions in conflict ask for, or are answered by, a word that one expert says and another contradicts. "
        "Rules of a budget look neither at the question nor at the picture; what experts are worth is measured on "
        "validation.",
    ),
    Section("made", "How it was made", made, "The file does not say."),
)
"""The sections in the order of the page, after the headline."""
