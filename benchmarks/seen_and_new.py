"""Setting E5, seen and new: what is worth believing is a property of the picture.

    python benchmarks/seen_and_new.py RUN [--questions 40] [--scenes 150]

RUN is a finished run of the recipe `photo`. Its model is asked where things are, whether they are there and what they
are called: things of training, and things of held-out classes, weighed equally; in compositions as they are, and
shifted (`shifted`: darker, blurred, noisier, as no training picture is). It reads, of every finding for which an expert
has both,

* features: what the adapter was taught, alone;
* words: the expert's own words alone;
* both: one behind the other, whatever they are;
* choice: what is decided by the picture: words alone where the finding looks like nothing that the features were
  taught; elsewhere features alone, or both. Either the model decides, as it does when it is asked anything
  (`regularisation.unfamiliar`), or an allocator (`familiar_things.py`). Who, which of the two, the allocator's signals
  and its threshold are chosen on validation compositions that are not shifted, with a third of the held-out names;
  those names are never asked about in the test.

Kept in benchmarks/results/seen_and_new.json, with a bootstrap over scenes of what the choice gains over the best of the
others, and for how many things it was right.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from astrea.alignment.known_words import KnownWords, known_words, with_known
from astrea.alignment.matrix import ExpertMatrix
from astrea.alignment.phrase_ids import PhraseIds
from astrea.common.progress import TerminalReporter
from astrea.common.provenance import commit, machine
from astrea.data.worlds import open_world
from astrea.evaluation.generate import Features, Predictor
from astrea.evaluation.metrics.vqa import vqa_accuracy
from astrea.experts.protocol import concat_features
from astrea.lab.arena.bootstrap import paired_difference
from astrea.language.labels import inside_a_sentence
from astrea.model.loading import load_model
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.world.evaluation.tasks import VqaItem, asked_about
from astrea.world.photographs.compositions import Compositions
from astrea.world.photographs.evaluate import source_of
from astrea.world.photographs.scene import PhotoScene
from astrea.world.photographs.templates import NEW_THINGS
from astrea.world.photographs.world import PhotographWorld
from astrea.world.scenes.questions import Templates
from familiar_things import (
    Allocator,
    Findings,
    Layout,
    Memory,
    Things,
    findings,
    fitted,
    layout,
    memory,
    owners,
    two_ways,
)
from result_files import write_results

RESULTS = Path(__file__).resolve().parent / "results" / "seen_and_new.json"
PLAIN = ("features", "words", "both")
OWN = "the model's own"
RULES = ("one of both", "both where familiar", OWN)
LIGHT, BLUR, NOISE = 0.55, 5, 0.05
"""Of a shifted picture: its light, the side of the box over which it is averaged twice, deviation of its noise."""

FAR = 100_000
"""The number of the first validation scene: test scenes come before."""
AT_ONCE = 25


def shifted(pixels_B3SS: Tensor, seed: int) -> Tensor:
    """Pictures taken in the dusk by an unsteady hand."""
    soft = pixels_B3SS
    for _ in range(2):
        soft = nn.functional.avg_pool2d(soft, BLUR, 1, BLUR // 2, count_include_pad=False)
    noise = torch.randn(soft.shape, generator=torch.Generator().manual_seed(seed))
    return (LIGHT * soft + NOISE * noise).clamp(0, 1)


@dataclass(frozen=True)
class Asked:
    """Questions of one kind of things. features: by shift."""

    scenes: list[PhotoScene]
    items: list[VqaItem]
    features: dict[str, Features]


@torch.no_grad()
def encoded(
    model: AstreaForConditionalGeneration,
    made: Compositions,
    scenes: Sequence[PhotoScene],
    *,
    names: Sequence[str] | None = None,
    change: Callable[[Tensor, int], Tensor] = lambda pixels, seed: pixels,
) -> Features:
    """The experts' features of compositions.

    Args:
        names: of experts; None = all. change: what is done to pictures before an expert sees them.
    """
    starts = range(0, len(scenes), AT_ONCE)
    return concat_features([model.experts(change(made.pixels(scenes[at : at + AT_ONCE]), at), names) for at in starts])


def asking(templates: Templates, names: frozenset[str]) -> Templates:
    """Of `NEW_THINGS`, the questions that name one of these things, or are answered by it."""

    def about(maker: Any, view: Any, rng: Any) -> list[Any]:
        return [(answer, args) for answer, args in maker(view, rng) if {answer, *args} & names]

    wanted = [name for some in NEW_THINGS.values() for name in some]
    makers = {name: partial(about, templates.makers[name]) for name in wanted}
    tasks = tuple(dict.fromkeys(name.partition(".")[0] for name in wanted))
    return replace(templates, makers=makers, tasks=tasks)


class Bench:
    """A model with its world, and what tells seen from new.

    Attributes:
        seen, tried, new: names of training, of held-out classes for validation, and for the test.
    """

    def __init__(self, run: Path, scenes: int, report: TerminalReporter) -> None:
        self.model, self.processor = load_model(run / "model")
        world = open_world(load_recipe(Recipe, str(run / "recipe.yaml")))
        assert isinstance(world, PhotographWorld)
        self.made, self.report = world.made, report
        catalogue = self.made.catalogue
        self.seen = frozenset(catalogue.trained)
        self.tried = frozenset(catalogue.new[::3])
        self.new = frozenset(catalogue.new) - self.tried
        self.predictor = Predictor(self.model, self.processor.tokenizer)
        self.known = self._known()
        alignment = self.model.model.alignment
        training = encoded(self.model, self.made, list(self.made.scenes("train", scenes)), names=two_ways(alignment))
        self.layout = layout(alignment, self.matrix(training))
        self.memory: dict[str, Memory] = memory(self.model.experts, training)

    def _known(self) -> KnownWords:
        pieces = [inside_a_sentence(name, self.processor.tokenizer) for name in self.made.catalogue.trained]
        ids = with_known(PhraseIds.model_validate(self.model.config.phrase_ids), pieces, {})
        vocabulary = self.model.config.text_config.vocab_size
        names, table = self.model.experts.names, self.model.get_input_embeddings()
        return known_words(ids, names, table, vocabulary, torch.device("cpu"))

    @torch.no_grad()
    def matrix(self, features: Features) -> ExpertMatrix:
        """The expert matrix of some pictures."""
        found: ExpertMatrix = self.model.model.alignment(features)
        return found

    def findings(self, features: Features, matrix: ExpertMatrix) -> Findings:
        """What can be told of their findings."""
        return findings(self.model.experts, self.known, self.memory, features, matrix, self.layout)

    def things(self, scenes: Sequence[PhotoScene], features: Features) -> Things:
        """Their findings with the truth."""
        found = self.findings(features, self.matrix(features))
        return Things(found, owners(found, scenes), [[thing.name for thing in scene.things] for scene in scenes])

    def strange(self, features: Features) -> Tensor:
        """Of which findings the model itself leaves out the features: (B, F) bool."""
        matrix, known = self.matrix(features), self.model.model.known_words()
        assert known is not None
        return (matrix.valid & ~known.familiar(matrix).valid)[:, self.layout.token]

    def asked(self, kind: str, split: str, names: frozenset[str], questions: int, *, both: bool) -> Asked:
        """Questions about things of a split.

        Args:
            both: also of shifted pictures.
        """
        base = self.made.new_questions if split == "new" else self.made.questions
        source = source_of(self.made, asking(base, names))
        if names == self.tried:
            source = replace(source, scenes=self.far)
        scenes, items = asked_about(source, split, questions, seed=source.seed + 5)
        features = {"clean": encoded(self.model, self.made, scenes)}
        if both:
            features["shifted"] = encoded(self.model, self.made, scenes, change=shifted)
        self.report.say(f"{kind}: {len(items)} questions about {len(scenes)} pictures")
        return Asked(scenes, items, features)

    def far(self, split: str, count: int) -> Iterator[PhotoScene]:
        """Scenes of a split that no test asks about."""
        return (self.made.scene(split, FAR + index) for index in range(count))

    def right(self, asked: Asked, shift: str, way: str, allocator: Allocator | None = None) -> np.ndarray:
        """Which questions are answered rightly, read in one way: 0 or 1 each."""
        pictures = torch.tensor([item.scene for item in asked.items])
        texts = [item.question.text for item in asked.items]
        with reading(self, way, allocator):
            said = self.predictor.answer(texts, asked.features[shift], pictures).texts
        return np.array(
            [vqa_accuracy(text, [item.question.answer]) for text, item in zip(said, asked.items, strict=True)]
        )


def believed(matrix: ExpertMatrix, where: Layout, words_BF: Tensor, features_BF: Tensor) -> ExpertMatrix:
    """The same pictures with own words, and features, only of those findings that are to be read so."""
    assert matrix.phrase is not None
    assert matrix.features is not None
    two_T = where.finding >= 0
    of_features = {int(matrix.expert[at]): int(matrix.phrase[at]) for at in where.token.tolist()}
    phrase_T = torch.tensor([of_features.get(index, -1) for index in matrix.expert.tolist()])
    is_features_T = two_T & (matrix.phrase == phrase_T)
    wanted_BT = torch.where(is_features_T, features_BF[:, where.finding], words_BF[:, where.finding]) | ~two_T
    return replace(matrix, valid=matrix.valid & wanted_BT)


@contextlib.contextmanager
def reading(bench: Bench, way: str, allocator: Allocator | None = None) -> Iterator[None]:
    """While open, the model reads findings in one of `PLAIN`, or as an allocator chooses by one of `RULES`."""
    model = bench.model

    def hook(module: nn.Module, given: Any, matrix: ExpertMatrix) -> ExpertMatrix:
        every_BF = torch.ones(len(matrix.tokens), len(bench.layout.token), dtype=torch.bool)
        if allocator is None:
            return believed(matrix, bench.layout, every_BF & (way != "features"), every_BF & (way != "words"))
        new_BF = allocator.new(bench.findings(given[0], matrix))
        return believed(matrix, bench.layout, new_BF if way == "one of both" else every_BF, ~new_BF)

    if way == OWN:
        yield
        return
    written = model.config.phrase_ids
    everything = PhraseIds.model_validate(written).model_copy(update={"least": {}})
    model.config.phrase_ids = everything.model_dump(mode="json")
    handle = model.model.alignment.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
        model.config.phrase_ids = written


def parts(asked: Asked) -> dict[str, np.ndarray]:
    """Which questions are of each of `NEW_THINGS`."""
    templates = [item.question.template for item in asked.items]
    found = {what: np.array([name in names for name in templates]) for what, names in NEW_THINGS.items()}
    return {what: mine for what, mine in found.items() if mine.any()}


def average(asked: Asked, right: np.ndarray) -> float:
    """Existence, place and name weighed equally."""
    return fmean(float(right[mine].mean()) for mine in parts(asked).values())


def allocated(bench: Bench, scenes: int, questions: int) -> tuple[Allocator, str, dict[str, Any]]:
    """The allocator and the rule that validation chooses, and what was tried."""
    far = [*bench.made.scenes("validation", scenes), *bench.far("new", scenes)]
    things = bench.things(far, encoded(bench.model, bench.made, far, names=list(bench.memory)))
    tried = fitted(things, bench.seen, bench.tried)
    allocator = tried[0][1]
    seen = bench.asked("seen, validation", "validation", bench.seen, questions, both=False)
    new = bench.asked("new, validation", "new", bench.tried, questions, both=False)
    rules = {}
    for number, rule in enumerate(RULES):
        bench.report.track("validation", number, len(RULES), rule)
        rules[rule] = 50 * sum(average(one, bench.right(one, "clean", rule, allocator)) for one in (seen, new))
    designs = [{"signals": one.design, "radius": one.radius, "right": round(100 * score, 1)} for score, one in tried]
    return allocator, max(rules, key=lambda rule: rules[rule]), {"designs": designs, "rules": rules}


def measured(bench: Bench, questions: int, scenes: int) -> dict[str, Any]:
    """All figures."""
    allocator, rule, tried = allocated(bench, scenes, questions)
    sets = {
        "seen": bench.asked("seen", "test", bench.seen, questions, both=True),
        "new": bench.asked("new", "new", bench.new, questions, both=True),
    }
    rows: dict[str, dict[str, np.ndarray]] = {way: {} for way in (*PLAIN, "choice")}
    numbers, choices = {}, {}
    for kind, asked in sets.items():
        for shift, features in asked.features.items():
            things = bench.things(asked.scenes, features)
            wanted = bench.seen if kind == "seen" else bench.new
            new_BF = bench.strange(features) if rule == OWN else allocator.new(things.findings)
            votes = things.chosen(new_BF, wanted)
            named = sum(name in wanted for names in things.names for name in names)
            share = 100 * fmean(vote == (kind == "new") for vote in votes)
            choices[f"{kind}, {shift}"] = {
                "right": share,
                "things": len(votes),
                "without a finding": named - len(votes),
            }
            scene = np.array([item.scene for item in asked.items]) + (FAR if kind == "new" else 0)
            for number, way in enumerate(rows):
                bench.report.track(f"{kind}, {shift}", number, len(rows), way)
                chosen = (rule, allocator) if way == "choice" else (way, None)
                right = bench.right(asked, shift, *chosen)
                for what, mine in parts(asked).items():
                    rows[way][f"{kind}, {shift}, {what}"] = right[mine]
                    numbers[f"{kind}, {shift}, {what}"] = scene[mine]
    means = {way: 100 * fmean(float(right.mean()) for right in some.values()) for way, some in rows.items()}
    best = max(PLAIN, key=lambda way: means[way])
    ours, theirs = ({cell: right[None] for cell, right in rows[way].items()} for way in ("choice", best))
    return {
        "scores": {
            way: {cell: 100 * float(right.mean()) for cell, right in some.items()} for way, some in rows.items()
        },
        "n": {cell: len(scene) for cell, scene in numbers.items()},
        "means": means,
        "best_other": best,
        "difference": paired_difference(ours, theirs, {cell: scene.tolist() for cell, scene in numbers.items()}),
        "choices": choices,
        "rule": rule,
        "signals": allocator.design,
        "radius": allocator.radius,
        "validation": tried,
        "shift": {"light": LIGHT, "blur": BLUR, "noise": NOISE},
        "validation_names": sorted(bench.tried),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--questions", type=int, default=40, help="per task, kind of things and shift")
    parser.add_argument("--scenes", type=int, default=150, help="of training, and twice as many of validation")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    with TerminalReporter() as report:
        results = measured(Bench(given.run, given.scenes, report), given.questions, given.scenes)
    results |= {"questions": given.questions, "scenes": given.scenes, "commit": commit(), "machine": machine()}
    write_results(given.out, results)
    print(json.dumps({key: results[key] for key in ("means", "difference", "choices", "validation")}, indent=1))


if __name__ == "__main__":
    main()
