"""The settings of the arena in which a mixture of experts has something to win.

What is changed, who takes part, what is reported beside the twelve tasks.

`astrea arena --setting NAME` runs one. To add one, add an entry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from astrea.common.errors import AstreaError
from astrea.lab.arena.variants import RANDOM_RATE, Variant
from astrea.lab.settings.many_experts import experts
from astrea.recipes.recipe import Recipe


@dataclass(frozen=True)
class Setting:
    """One setting.

    overrides: of the base recipe, before those of the command line. wanted: variants of the arena that take part, where
    the command line names none. more: variants that the arena does not have. reports: see
    `astrea.lab.settings.reports`.
    """

    title: str
    overrides: tuple[str, ...]
    wanted: str
    more: Callable[[Recipe], list[Variant]] = lambda recipe: []
    reports: tuple[str, ...] = ()


def from_random(recipe: Recipe) -> list[Variant]:
    """Adapters that start from random weights: aligned by words, then with whole pictures and agreement as well, one
    expert after another or all at once. The arena has those that are not aligned at all, and those that start at words.
    """
    random = ("model.word_start=false", *(f"{stage}.lr={RANDOM_RATE}" for stage in ("align", "fuse", "tune")))
    whole = ("align.train=[adapters, heads]", "align.losses={word: 1.0, itc: 0.3, agree: 0.1}")
    return [
        Variant("random_joint", "ablation", (*random, "align.progressive=false"), "aligned by words, all at once"),
        Variant("random_whole", "ablation", (*random, *whole), "aligned by words, as a whole and to each other"),
        Variant(
            "random_whole_joint",
            "ablation",
            (*random, *whole, "align.progressive=false"),
            "the same, all at once",
        ),
    ]


def sixteen_experts() -> tuple[str, ...]:
    """The four experts of the base recipe out, their sixteen parts in."""
    gone = (f"experts.{name}=null" for name in ("captioning", "classification", "segmentation", "detection"))
    return (*(f"experts.{name}={json.dumps(entry)}" for name, entry in experts().items()), *gone)


SETTINGS: Mapping[str, Setting] = {
    "e1": Setting(
        "many experts, a budget",
        sixteen_experts(),
        "astrea,allocator,sequence_concat,sequence_concat_aligned,routed_scope,routed_top_k",
        reports=("budgets",),
    ),
    "e2": Setting(
        "conflict and shift",
        ("world.clean=0.8", "world.test_clean=0.2", "world.test_pairs=0.5"),
        "astrea,allocator,trust,with_lies,with_confidence,sequence_concat,sequence_concat_aligned",
        reports=("conflict", "faults"),
    ),
    "e4": Setting(
        "no words given",
        ("model.word_match=0",),
        "word_start_and_alignment,word_start,random_joint,random_whole,random_whole_joint,alignment,astrea",
        more=from_random,
    ),
}
"""By name. e3 (high resolution) is not there yet."""

ELSEWHERE: Mapping[str, str] = {
    "e5": "seen and new things, of photographs: python benchmarks/seen_and_new.py RUN, with a run of the recipe photo",
}
"""Settings that ask a finished run, and train nothing."""


def setting_named(name: str) -> Setting:
    """The setting of this name.

    Raises:
        AstreaError: there is none.
    """
    if name in ELSEWHERE:
        raise AstreaError(f"the arena trains nothing for the setting {name!r}", ELSEWHERE[name])
    if name not in SETTINGS:
        raise AstreaError(f"there is no setting {name!r}", f"known: {', '.join(SETTINGS)}")
    return SETTINGS[name]
