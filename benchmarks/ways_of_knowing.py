"""What experts' own words and their aligned features each know, of things that training shows and of new ones.

    python benchmarks/ways_of_knowing.py RUN [--questions 60]

RUN is a finished run of the recipe `photo`. Its model is asked about compositions of the test split and about things of
the held-out classes, where they are and what they are called, and reads

* both: of every finding its features and its expert's own words, but features that are near to no word that was taught
  are left out (`regularisation.unfamiliar`), as in the model itself;
* always both: also features that are near to no word;
* features, words: one of the two alone, where an expert has both; places and sizes stand in either.

The figures, with the blind score, are kept in benchmarks/results/ways_of_knowing.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from astrea.alignment.matrix import ExpertMatrix
from astrea.alignment.phrase_ids import PhraseIds
from astrea.common.files import write_json_atomic
from astrea.common.progress import TerminalReporter
from astrea.common.provenance import commit, machine
from astrea.data.worlds import open_world
from astrea.evaluation.generate import Predictor
from astrea.model.loading import load_model
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.world.evaluation.runner import EncodedTestSets, run_tasks, template_scores
from astrea.world.evaluation.tasks import TestSets, asked_about
from astrea.world.photographs.compositions import Compositions
from astrea.world.photographs.dataset import features_of
from astrea.world.photographs.evaluate import pooled, source_of, suite_of
from astrea.world.photographs.templates import NEW_THINGS
from astrea.world.photographs.world import PhotographWorld

RESULTS = Path(__file__).resolve().parent / "results" / "ways_of_knowing.json"
WAYS = ("both", "always both", "features", "words")


def lost_phrases(matrix: ExpertMatrix, way: str) -> Tensor:
    """The number of the phrase that each expert does without, (1, E); -1 where it has only one kind."""
    assert matrix.phrase is not None
    assert matrix.features is not None
    lost = torch.full((1, matrix.experts), -1, device=matrix.expert.device)
    for expert in range(matrix.experts):
        mine = matrix.expert == expert
        with_features = set(matrix.phrase[mine & matrix.features].tolist())
        words = set(matrix.phrase[mine].tolist()) - with_features
        if len(with_features) == 1 and len(words) == 1:
            lost[0, expert] = (words if way == "features" else with_features).pop()
    return lost


@contextlib.contextmanager
def reading(model: AstreaForConditionalGeneration, way: str) -> Iterator[None]:
    """While open, the model reads findings in one of `WAYS`."""

    def hook(module: nn.Module, given: Any, matrix: ExpertMatrix) -> ExpertMatrix:
        return matrix.without_phrases(lost_phrases(matrix, way).expand(len(matrix.tokens), -1))

    written = model.config.phrase_ids
    handle = model.alignment.register_forward_hook(hook) if way in ("features", "words") else None
    if way != "both":
        everything = PhraseIds.model_validate(written).model_copy(update={"least": {}})
        model.config.phrase_ids = everything.model_dump(mode="json")
    try:
        yield
    finally:
        model.config.phrase_ids = written
        if handle is not None:
            handle.remove()


def encoded_sets(
    model: AstreaForConditionalGeneration, made: Compositions, questions: int, report: TerminalReporter
) -> dict[str, tuple[EncodedTestSets, tuple[str, ...]]]:
    """Questions about known and about new things, with the experts' features of their pictures, and their tasks."""
    about = made.new_questions
    makers = {name: made.questions.makers[name] for name in about.makers}
    seen = replace(made.questions, makers=makers, tasks=about.tasks)
    found = {}
    for kind, split, templates in (("seen", "test", seen), ("new", "new", about)):
        source = source_of(made, templates)
        scenes, asked = asked_about(source, split, questions, seed=source.seed + 3)
        sets = TestSets(scenes, asked, {}, [], [], [])
        found[kind] = (
            EncodedTestSets(sets, features_of(model.experts, made, scenes, report=report), {}, {}, suite_of(made)),
            about.tasks,
        )
    return found


def measured(run: Path, questions: int) -> dict[str, Any]:
    """Scores of a run's model per way of reading, kind of things and kind of question."""
    model, processor = load_model(run / "model")
    world = open_world(load_recipe(Recipe, str(run / "recipe.yaml")))
    assert isinstance(world, PhotographWorld)
    predictor, results = Predictor(model, processor.tokenizer), {}
    with TerminalReporter() as report:
        for kind, (encoded, tasks) in encoded_sets(model, world.made, questions, report).items():
            blind = run_tasks(predictor, encoded, tasks, blind=True, label=f"{kind}, blind", report=report)
            for way in WAYS:
                with reading(model, way):
                    main = run_tasks(predictor, encoded, tasks, blind=False, label=f"{kind}, {way}", report=report)
                scores = template_scores(encoded, main, blind)
                results.setdefault(way, {})[kind] = {name: pooled(scores, of) for name, of in NEW_THINGS.items()}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--questions", type=int, default=60, help="per task and kind of things")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    ways = measured(given.run, given.questions)
    write_json_atomic(given.out, {"questions": given.questions, "ways": ways, "commit": commit(), "machine": machine()})
    print(json.dumps(ways, indent=1))


if __name__ == "__main__":
    main()
