"""The settings of the arena in which a mixture of experts has something to win.

What is changed, who takes part, what is reported beside the twelve tasks.

`astrea arena --setting NAME` runs one. To add one, add an entry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from astrea.common.errors import AstreaError
from astrea.experts.bank import COMPACT
from astrea.lab.arena.variants import PEER_RATE, STAGES, TIMED, Variant
from astrea.lab.settings.many_experts import experts
from astrea.recipes.recipe import Recipe
from astrea.world.experts.slots import MOST_SLOTS

OBJECT_CANVAS = 64
"""Side in pixels of the pictures that the package's experts were trained on."""


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


def named_or_unaligned(recipe: Recipe) -> list[Variant]:
    """What states are held against: the same experts with their names, and states that nothing brings to words."""
    names = tuple(f"experts.{name}={json.dumps({'kind': entry.kind})}" for name, entry in recipe.experts.items())
    unaligned = ("align.steps=0", *(f"{stage}.losses.caption_words=0" for stage in ("fuse", "tune")))
    return [
        Variant("with_names", "ablation", names, "experts give names, so there is little to align"),
        Variant("unaligned", TIMED, unaligned, "without the stage of alignment and its loss"),
    ]


def item_gate_and_agreement(_: Recipe) -> list[Variant]:
    """A gate that learns from single items, and experts that are not believed where their words contradict others'."""
    note = "the gate predicts single items' contributions; experts that contradict the others count as absent"
    return [Variant("item_gate_and_agreement", "ablation", ("model.gate_targets=items", "model.agreement=true"), note)]


def four_of_states() -> tuple[str, ...]:
    """The compact experts without names, their findings as phrases, aligned to the words of captions."""
    entries = {name: json.dumps({"kind": name, "options": {"states": True}}) for name in COMPACT}
    return (
        *(f"experts.{name}={entry}" for name, entry in entries.items()),
        *("model.findings=phrases", "model.word_match=0"),
        *("align.losses={word: 0, caption_words: 1.0}", "align.steps=1500"),
        *(f"{stage}.losses.caption_words=0.2" for stage in ("fuse", "tune")),
        *(f"{stage}.lr={PEER_RATE}" for stage in STAGES),
    )


def sixteen_experts() -> tuple[str, ...]:
    """The four experts of the base recipe out, their sixteen parts in."""
    gone = (f"experts.{name}=null" for name in ("captioning", "classification", "segmentation", "detection"))
    return (*(f"experts.{name}={json.dumps(entry)}" for name, entry in experts().items()), *gone)


def high_resolution() -> tuple[str, ...]:
    """Pictures sixteen times as large with as many more things of the same size, and slots for all of them."""
    options = {"slots": MOST_SLOTS, "trained_at": OBJECT_CANVAS}
    entries = {name: json.dumps({"kind": name, "options": options}) for name in ("segmentation", "detection")}
    return (
        *("world.canvas=256", f"world.object_canvas={OBJECT_CANVAS}", "world.min_objects=20", "world.max_objects=40"),
        *(f"experts.{name}={entry}" for name, entry in entries.items()),
    )


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
        "astrea,item_gate_and_agreement,allocator,trust,with_lies,with_confidence,sequence_concat,sequence_concat_aligned",
        more=item_gate_and_agreement,
        reports=("conflict", "faults", "gate_weights"),
    ),
    "e3": Setting(
        "high resolution",
        high_resolution(),
        "astrea,with_thrift,allocator,sequence_concat,sequence_concat_aligned",
        reports=("token_budgets",),
    ),
    "e4": Setting(
        "no words given",
        four_of_states(),
        "astrea,progressive,with_pooled_alignment,with_names",
        more=named_or_unaligned,
    ),
}
"""By name."""

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
