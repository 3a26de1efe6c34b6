"""What is compared: every strategy, Astrea without each ingredient, without each expert, and with each pair of experts.

A variant is a name and the overrides that make it of the base recipe. Nothing else differs: data, seeds, experts,
batch sizes and the number of optimizer steps are the base recipe's. To add one, add a line.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from astrea.common.errors import AstreaError
from astrea.recipes.recipe import Recipe

KINDS = {"strategies": "strategy", "ablations": "ablation", "retraining": "retraining", "pairs": "pair"}
"""What the command line calls each kind of variant."""

TIMED = "timed"
"""The kind of a variant that is only run for as long as Astrea, see `astrea.lab.arena.equal_time`."""

CURVES = ("astrea", "sequence_concat")
"""Strategies whose score is followed during training."""

PEER_RATE = 0.001
"""Learning rate that the other strategies start from."""

RANDOM_RATE = 0.002
"""What most of them end at, and adapters that start from random weights."""

STAGES = ("align", "fuse", "tune")
NO_STEPS = tuple(f"{stage}.steps=0" for stage in STAGES)

TWICE = ("fuse.lr=0.002", "tune.lr=0.002")

TUNED: Mapping[str, tuple[str, ...]] = {
    "single_captioning": TWICE,
    "single_classification": TWICE,
    "single_segmentation": TWICE,
    "single_detection": TWICE,
    "average": TWICE,
    "sequence_concat": TWICE,
    "channel_concat": TWICE,
    "channel_concat_aligned": ("align.lr=0.002", *TWICE),
    "switch": ("fuse.lr=0.004", "tune.lr=0.004"),
    "mova": TWICE,
    "student": TWICE,
}
"""Strategy -> overrides that its sweep found on validation (see `astrea.lab.arena.lr_sweep`); one without a line keeps
the rates that it starts from. Astrea's would hold for its variants too."""


ROUTED: Mapping[str, str] = {
    "soft": "every expert, weighed by a router",
    "top_k": "two experts per question, as in GShard",
    "top_p": "as many experts as reach a mass, after Harder Tasks Need More Experts",
    "grouped": "one expert of each of two groups, after Pangu Pro MoE",
    "shared": "captioning, and three of the others' half experts, after DeepSeekMoE",
    "random": "random experts twice, with a consistency loss, after THOR",
    "uncertainty": "what the router is unsure of counts less, after MoFME",
    "cascade": "captioning alone where it is sure, or else all, after Mowst",
    "correctness": "a router taught who would be right alone, after DriftMoE",
    "scope": "captioning and one expert that it and the question choose, after SCOPE",
    "primary": "one expert that reads two others, after Mixture of Thoughts",
    "heads": "routed attention heads over all experts' tokens, after MoH",
    "adapters": "a gated adapter per expert, after PILL",
}
"""Every policy of the strategy ``routed`` at its own defaults, with a note for readers."""


@dataclass(frozen=True)
class Variant:
    """One row of the comparison.

    kind: "strategy", "ablation", "retraining", "pair", "wall" (equal time: a strategy given as much of it as
    Astrea), "timed" (run at equal time alone), or "trial" (of the learning-rate sweep: a strategy with other learning
    rates, scored on validation).
    overrides: what it changes in the base recipe. note: one line for readers.
    """

    name: str
    kind: str
    overrides: tuple[str, ...]
    note: str


def variants(recipe: Recipe) -> list[Variant]:
    """Every variant for a base recipe, whose experts and numbers of steps they follow."""
    own = [*ablations(recipe), *retraining(recipe), *pairs(recipe)]
    return [
        *(replace(each, overrides=(*each.overrides, *TUNED.get(each.name, ()))) for each in strategies(recipe)),
        # Before their own changes, which win.
        *(replace(each, overrides=(*TUNED.get("astrea", ()), *each.overrides)) for each in own),
    ]


def strategies(recipe: Recipe) -> list[Variant]:
    """Astrea with the base recipe's learning rates and the other fusion strategies with `PEER_RATE`."""
    # A strategy of its own adds no use to Astrea's switches: no pre-alignment, and its steps are given to `tune`.
    # Nor do their authors take experts away or make them lie in training.
    own_way = (
        "regularisation.expert_dropout=0",
        # They were given the longer queue when Astrea still had one; it can only help their heads.
        "contrast.queue=1024",
        # Astrea learns best at half these rates, others at these or higher ones (docs/lab-notes.md).
        *(f"{stage}.lr={PEER_RATE}" for stage in STAGES),
        # Where nothing is aligned this means nothing; Eagle's way of aligning has no such losses.
        "align.train=[adapters, heads]",
        "align.losses={word: 1.0, itc: 0.3, agree: 0.1}",
    )
    unaligned = (
        *own_way,
        "model.word_start=false",
        "align.steps=0",
        f"tune.steps={recipe.tune.steps + recipe.align.steps}",
    )

    def peer(name: str, strategy: str, note: str, *more: str, common: tuple[str, ...] = unaligned) -> Variant:
        return Variant(name, "strategy", (f"model.strategy={strategy}", *common, *more), note)

    return [
        Variant("astrea", "strategy", (), "the base recipe"),
        *(
            peer(f"single_{expert}", "single", f"{expert} alone", f"model.options={{expert: {expert}}}")
            for expert in recipe.experts
        ),
        peer("average", "average", "experts averaged on one grid"),
        peer("sequence_concat", "sequence_concat", "all tokens side by side, as LLaVA-style models do"),
        peer(
            "sequence_concat_aligned",
            "sequence_concat",
            "the same with adapters that start at words and are aligned, at Astrea's rate",
            "model.word_start=true",
            *(f"{stage}.lr={getattr(recipe, stage).lr}" for stage in STAGES),
            common=own_way,
        ),
        peer("channel_concat", "channel_concat", "experts stacked on channels, as Eagle does"),
        peer(
            "channel_concat_aligned",
            "channel_concat",
            "the same after Eagle's pre-alignment: each expert alone on next-token prediction",
            "model.word_start=false",
            "align.kind=next_token",
            "align.losses={}",
            f"align.batch={recipe.fuse.batch}",
            common=own_way,
        ),
        peer(
            "switch",
            "routed",
            "one expert per question, with a balancing loss",
            "model.options={policy: top_k, k: 1, alone: true}",
        ),
        *(
            peer(f"routed_{policy}", "routed", note, f"model.options={{policy: {policy}}}")
            for policy, note in ROUTED.items()
        ),
        peer("written", "sequence_concat", "findings as words, after Socratic Models", "model.findings=written"),
        peer("mova", "mova", "coarse to fine, after MoVA"),
        # MoAI verbalises what its experts see with the language model's own words, so it starts at them too.
        peer("moai", "moai", "expert words compressed and gated, after MoAI", "model.word_start=true"),
        *(
            peer(
                f"spatial_{softmax}",
                "spatial_sampler",
                f"spatial sampler after Cambrian-1, {softmax} softmax",
                f"model.options={{softmax: {softmax}}}",
            )
            for softmax in ("joint", "separate")
        ),
        student(recipe, unaligned),
    ]


def student(recipe: Recipe, unaligned: tuple[str, ...]) -> Variant:
    """One encoder distilled from all experts, read as LLaVA reads its own."""
    gone = (f"experts.{name}=null" for name in recipe.experts)
    # Whole entries: a teacher may come from a checkpoint, and with options.
    teachers = {name: entry.model_dump(mode="json", exclude_defaults=True) for name, entry in recipe.experts.items()}
    taught = json.dumps({"teachers": teachers}, ensure_ascii=False)  # which is YAML too
    return Variant(
        "student",
        "strategy",
        (
            "experts.student={kind: student}",
            *gone,
            f"distill={taught}",
            "model.strategy=sequence_concat",
            *unaligned,
        ),
        "one student distilled from all experts, after RADIO; distilling counts as training time",
    )


def ablations(recipe: Recipe) -> list[Variant]:
    """Astrea with one ingredient off, or with one more."""
    # What starts at random learns best at the rates of the other strategies, whose adapters start so too.
    random = ("model.word_start=false", *(f"{stage}.lr={RANDOM_RATE}" for stage in STAGES))
    unaligned = ("align.steps=0", f"tune.steps={recipe.tune.steps + recipe.align.steps}")
    whole = ("align.train=[adapters, heads]", "align.losses.itc=0.3", "align.losses.agree=0.1")
    off = {
        "training": ("no step of any stage: what the language model's warm-up and the word start bring", *NO_STEPS),
        "alignment": ("no stage of alignment; its steps are given to `tune`", *unaligned),
        "word_start": ("adapters start from random weights, and are aligned", *random),
        "word_start_and_alignment": ("adapters start from random weights, and are not aligned", *random, *unaligned),
        # Aligned as a whole, or there would be nothing to align by.
        "token_alignment": ("no alignment by words", *whole, "align.losses.word=0", "model.word_start=false"),
        "progressive": ("experts aligned all at once", "align.progressive=false"),
        "word_match": ("no word match in attention", "model.word_match=0"),
        "mixer": ("no mixer", "model.mixer=false"),
        "allocator": (
            "equal gate weights, every expert counts as reliable: the aligned concat",
            "model.gate=false",
            "model.reliability=false",
        ),
        "allocator_and_dropout": (
            "equal gate weights, every expert counts as reliable, none left out in training: a plain aligned concat",
            *("model.gate=false", "model.reliability=false", "regularisation.expert_dropout=0"),
        ),
        "trust": ("every expert counts as reliable", "model.reliability=false"),
        "question": ("the gate does not read the question", "model.gate_question=false"),
        "load_bias": ("no load bias", "regularisation.load_rate=0"),
        "contribution": ("no calibration by contribution", "regularisation.contribution_every=0"),
        "expert_dropout": ("no expert dropout", "regularisation.expert_dropout=0"),
        "warm_language": ("the language model starts from random weights", "model.pretrained_llm=false"),
    }
    if not recipe.model.word_match:  # it would be Astrea once more
        del off["word_match"]
    # What left the default when it gained nothing (docs/lab-notes.md): to see whether that is still so.
    on = {
        "with_queue": ("contrast with a queue of 1,024", "contrast.queue=1024"),
        "with_confidence": ("the gate reads the experts' confidence", "model.gate_confidence=true"),
        "with_residual": ("the stochastic residual, with its gates", "model.residual=true"),
        "with_thrift": ("one training question in five reads only its best tokens", "model.prune_share=0.2"),
        "with_lies": (
            "an expert's output is corrupted for one training picture in ten",
            "regularisation.corruption=0.1",
        ),
        "with_pooled_alignment": ("pictures and captions aligned as a whole, too", *whole),
    }
    return [Variant(name, "ablation", tuple(changes), note) for name, (note, *changes) in (off | on).items()]


def ablation_title(name: str) -> str:
    """What an ablation is called beside others: "without" what it lacks, or "with" what it has."""
    return name.replace("_", " ") if name.startswith("with_") else f"without {name.replace('_', ' ')}"


def retraining(recipe: Recipe) -> list[Variant]:
    """Astrea trained without one expert. Its visual tokens are gone too, so M is smaller."""
    return [
        Variant(f"without_{name}", "retraining", (f"experts.{name}=null",), f"trained without {name}")
        for name in recipe.experts
        if len(recipe.experts) > 1
    ]


def pairs(recipe: Recipe) -> list[Variant]:
    """Astrea trained with two experts only."""
    return [
        Variant(
            f"pair_{first}_{second}",
            "pair",
            tuple(f"experts.{name}=null" for name in recipe.experts if name not in (first, second)),
            f"{first} and {second} only",
        )
        for first, second in combinations(recipe.experts, 2)
    ]


def choose(everyone: Sequence[Variant], wanted: str) -> list[Variant]:
    """The variants that a comma-separated list of names and kinds (or "all") asks for, in the order of the table.

    Raises:
        AstreaError: a name that is neither.
    """
    asked = [name.strip() for name in wanted.split(",") if name.strip()]
    known = ["all", *KINDS, *(each.name for each in everyone)]
    for name in asked:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise AstreaError(f"unknown variant {name!r}", hint)
    kinds = {KINDS[name] for name in asked if name in KINDS}
    found = [each for each in everyone if "all" in asked or each.name in asked or each.kind in kinds]
    if not found:
        raise AstreaError("no variant was named", f"known: {', '.join(known)}")
    return found
