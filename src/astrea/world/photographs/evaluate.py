"""Evaluating a model on compositions: the twelve tasks, naming apart, and things that training never showed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from astrea.common.progress import SILENT, Reporter
from astrea.evaluation.generate import Predictor
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.recipes.recipe import Data
from astrea.world.evaluation.runner import EncodedTestSets, Outcome, full_table, run_tasks, template_scores
from astrea.world.evaluation.suite import Suite
from astrea.world.evaluation.tasks import TASKS, SceneSource, TestSets, asked_about, collect_test_sets
from astrea.world.photographs.compositions import CONDITIONS, Compositions
from astrea.world.photographs.dataset import features_of
from astrea.world.photographs.templates import NAMING, NEW_THINGS
from astrea.world.scenes.questions import Templates

Scores = dict[str, dict[str, float]]


def suite_of(made: Compositions) -> Suite:
    """Compositions as the twelve tasks measure them."""
    return Suite(made.references, made.caption_score, made.condition, CONDITIONS, made.pixels)


def source_of(made: Compositions, templates: Templates) -> SceneSource:
    """Compositions as test scenes."""
    return SceneSource(
        scenes=made.scenes,
        scene=made.scene,
        swapped=made.swapped,
        caption=lambda scene: made.references(scene, 0)[0],
        templates=templates,
        seed=made.planner.seed,
    )


def evaluate(
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    made: Compositions,
    data: Data,
    *,
    tasks: Sequence[str] = TASKS,
    masking: bool = True,
    split: str = "test",
    report: Reporter = SILENT,
) -> tuple[dict[str, Any], EncodedTestSets, Outcome]:
    """The whole table as the JSON-able ``results.json`` (scores 0..100), with what it was made from.

    Beside what `astrea.world.evaluation.runner.full_table` gives: ``naming``, the score of all questions for a name,
    and ``new_things``, scores of questions about things that no training picture shows.
    """
    started = time.perf_counter()
    model.eval()
    sets = collect_test_sets(source_of(made, made.questions), data, split=split)
    encoded = encode_sets(model, made, sets)
    results, main = full_table(
        model, tokenizer, encoded, tasks=tasks, masking=masking, most_masked=data.test_masked, report=report
    )
    results["naming"] = pooled(results["templates"], NAMING)
    if made.catalogue.new:
        results["new_things"] = about_new_things(model, tokenizer, made, data, report=report)
    results["seconds"] = {"evaluate": time.perf_counter() - started}
    return results, encoded, main


def encode_sets(model: AstreaForConditionalGeneration, made: Compositions, sets: TestSets) -> EncodedTestSets:
    """The experts' features of all test pictures."""
    described = {task: features_of(model.experts, made, scenes) for task, scenes in sets.described.items()}
    return EncodedTestSets(
        sets,
        features_of(model.experts, made, sets.scenes),
        described,
        features_of(model.experts, made, sets.pool),
        suite_of(made),
    )


def about_new_things(
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    made: Compositions,
    data: Data,
    *,
    report: Reporter = SILENT,
) -> Scores:
    """Existence, place and name of things of the held-out classes: the score, how many questions, the blind score."""
    source = source_of(made, made.new_questions)
    scenes, asked = asked_about(source, "new", data.test_questions, seed=source.seed + 2)
    encoded = EncodedTestSets(
        TestSets(scenes, asked, {}, [], [], []), features_of(model.experts, made, scenes), {}, {}, suite_of(made)
    )
    tasks = made.new_questions.tasks
    predictor, label = Predictor(model, tokenizer), "evaluate new things"
    main, dark = (
        run_tasks(predictor, encoded, tasks, blind=blind, label=label, report=report) for blind in (False, True)
    )
    scores = template_scores(encoded, main, dark)
    return {what: pooled(scores, names) for what, names in NEW_THINGS.items()}


def pooled(scores: Scores, templates: Sequence[str]) -> dict[str, float]:
    """Score and blind score of all questions of some templates together; NaN where none was asked."""
    some = [scores[name] for name in templates if name in scores]
    count = sum(each["n"] for each in some)
    means = {
        key: sum(each[key] * each["n"] for each in some) / count if count else float("nan")
        for key in ("score", "blind")
    }
    return {**means, "n": count}
