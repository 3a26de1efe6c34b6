"""Evaluating a model on the twelve tasks, with a blind row, each expert masked, and shares beside the scores."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from astrea.common.progress import SILENT, Reporter
from astrea.data.feature_cache import FeatureCache
from astrea.data.packing import CAPTION_PROMPT
from astrea.evaluation.generate import Features, Predictor
from astrea.evaluation.metrics.balance import load_balance
from astrea.evaluation.metrics.captions import bleu, cider_d, rouge_l
from astrea.evaluation.metrics.retrieval import ranks_i2t, ranks_t2i, recall_at
from astrea.evaluation.metrics.vqa import vqa_accuracy
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.recipes.recipe import Data, World
from astrea.world.dataset import cached_features, features_of, scenes_of, these_scenes
from astrea.world.evaluation.experts import expert_scores
from astrea.world.evaluation.suite import DRAWN, Suite
from astrea.world.evaluation.tasks import CAPTION_TASKS, RETRIEVAL_TASKS, TASKS, TestSets, build_test_sets
from astrea.world.scenes.questions import VQA_TASKS, majority_baseline
from astrea.world.scenes.scene import Scene

SCHEMA = 1
SHORTLIST = 16
"""How many candidates the embeddings keep for the language model to re-rank."""

CAPTION_LENGTH = 56
METRIC = {
    **dict.fromkeys(VQA_TASKS, "vqa_accuracy"),
    **dict.fromkeys(CAPTION_TASKS, "scene_f1"),
    **dict.fromkeys(RETRIEVAL_TASKS, "recall@1"),
}


@dataclass(frozen=True, slots=True)
class EncodedTestSets:
    """The test sets with every expert's features of them, computed once for all rows of the table."""

    sets: TestSets
    questions: Features
    described: dict[str, Features]
    pool: Features
    suite: Suite = DRAWN


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row of the table. Scores 0..100; per_item[task] in the order of the items; shares (B, E) per task."""

    scores: dict[str, float]
    secondary: dict[str, dict[str, float]]
    per_item: dict[str, np.ndarray]
    shares: dict[str, Tensor]
    answers: dict[str, list[str]]

    @property
    def average(self) -> float:
        """The mean of the primary scores."""
        return float(np.mean(list(self.scores.values())))


def encode_test_sets(
    model: AstreaForConditionalGeneration,
    sets: TestSets,
    cache: FeatureCache | None = None,
    report: Reporter | None = None,
) -> EncodedTestSets:
    """The experts' features of all test pictures, out of the ``cache`` if there is one and it has them."""

    def features(scenes: list[Scene]) -> Features:
        if cache is None or not scenes:
            return features_of(model.experts, scenes)
        reporter = report or Reporter()
        which = these_scenes(scenes)
        return cached_features(model.experts, scenes, which, cache=cache, progress=reporter.track, notify=reporter.say)

    described = {task: features(scenes) for task, scenes in sets.described.items()}
    return EncodedTestSets(sets, features(sets.scenes), described, features(sets.pool))


def run_tasks(
    predictor: Predictor,
    encoded: EncodedTestSets,
    tasks: Sequence[str],
    *,
    blind: bool,
    label: str,
    report: Reporter = SILENT,
) -> Outcome:
    """Evaluate some of the tasks, with pictures or ``blind``."""
    outcome = Outcome({}, {}, {}, {}, {})
    for number, task in enumerate(t for t in tasks if t not in RETRIEVAL_TASKS):
        report.track(label, number, len(tasks), task)
        if task in VQA_TASKS:
            run_vqa(predictor, encoded, task, outcome, blind)
        else:
            run_captioning(predictor, encoded, task, outcome, blind)
    if any(task in RETRIEVAL_TASKS for task in tasks):
        report.track(label, len(tasks) - 2, len(tasks), "retrieval")
        run_retrieval(predictor, encoded, [t for t in tasks if t in RETRIEVAL_TASKS], outcome, blind)
    report.track(label, len(tasks), len(tasks), f"average {outcome.average:.1f}")
    return outcome


def run_vqa(predictor: Predictor, encoded: EncodedTestSets, task: str, outcome: Outcome, blind: bool) -> None:
    """One VQA task: greedy answers against the truth."""
    items = [item for item in encoded.sets.questions if item.question.task == task]
    texts = [item.question.text for item in items]
    pictures = None if blind else torch.tensor([item.scene for item in items])
    answered = predictor.answer(texts, encoded.questions, pictures)
    right = np.array(
        [vqa_accuracy(text, [item.question.answer]) for text, item in zip(answered.texts, items, strict=True)]
    )
    outcome.scores[task] = 100 * float(right.mean())
    outcome.per_item[task] = right
    outcome.answers[task] = answered.texts
    if answered.shares is not None:
        outcome.shares[task] = answered.shares


def run_captioning(predictor: Predictor, encoded: EncodedTestSets, task: str, outcome: Outcome, blind: bool) -> None:
    """One captioning task: scene F1, with the usual caption metrics beside it."""
    scenes = encoded.sets.described[task]
    pictures = None if blind else torch.arange(len(scenes))
    answered = predictor.answer(
        [CAPTION_PROMPT] * len(scenes), encoded.described[task], pictures, longest=CAPTION_LENGTH
    )
    scores = np.array(
        [encoded.suite.caption_score(text, scene) for text, scene in zip(answered.texts, scenes, strict=True)]
    )
    truth = [encoded.suite.references(scene, index) for index, scene in enumerate(scenes)]
    outcome.scores[task] = 100 * float(scores.mean())
    outcome.per_item[task] = scores
    outcome.answers[task] = answered.texts
    outcome.secondary[task] = {
        "cider_d": 100 * cider_d(answered.texts, truth).corpus,
        "bleu4": 100 * bleu(answered.texts, truth)[3].corpus,
        "rouge_l": 100 * rouge_l(answered.texts, truth).corpus,
    }
    if answered.shares is not None:
        outcome.shares[task] = answered.shares


def run_retrieval(
    predictor: Predictor, encoded: EncodedTestSets, tasks: Sequence[str], outcome: Outcome, blind: bool
) -> None:
    """Both directions in one pool: embeddings keep a shortlist, the language model's likelihood ranks it."""
    texts = encoded.sets.pool_captions
    count = len(texts)
    owners = np.arange(count)
    scores = rank_pool(predictor, None if blind else encoded.pool, texts)
    for task in tasks:
        if task == "retrieval_t2i" and blind:
            # Without pictures all of them look alike: the expected figures of a blind draw.
            recalls = {k: 100 * k / count for k in (1, 5, 10)}
            ranks = np.full(count, count)
        else:
            # "Which caption for this picture" compares captions, so their own likelihood is taken off.
            table = scores["pmi"] if task == "retrieval_i2t" else scores["likelihood"]
            ranks = ranks_i2t(table, owners) if task == "retrieval_i2t" else ranks_t2i(table, owners)
            recalls = {k: recall_at(ranks, k) for k in (1, 5, 10)}
        outcome.scores[task] = recalls[1]
        outcome.secondary[task] = {"recall@5": recalls[5], "recall@10": recalls[10]}
        if not blind:
            ranks_embed = (ranks_i2t if task == "retrieval_i2t" else ranks_t2i)(scores["embedding"], owners)
            outcome.secondary[task]["recall@1_embedding_only"] = recall_at(ranks_embed, 1)
        outcome.per_item[task] = (ranks == 1).astype(float)
    if not blind:
        prompts = predictor.prompts([CAPTION_PROMPT] * count, pictures=True)
        shares = predictor.model.shares(
            **prompts, features=predictor.rows(encoded.pool, slice(None)), present=predictor.present(count)
        ).cpu()
        outcome.shares.update(dict.fromkeys(tasks, shares))


def rank_pool(predictor: Predictor, features: Features | None, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Scores (N, C) of every picture with every caption.

    Returns:
        "embedding": cosine. "likelihood": log p(caption | picture) where either direction shortlisted the pair,
        elsewhere a floor plus the cosine (so that the order beyond the shortlist is the embeddings' own).
        "pmi": the same minus log p(caption). Blind (``features`` None): one row's likelihoods, repeated.
    """
    count = len(texts)
    everything = list(range(count))
    groups = [everything[i : i + SHORTLIST] for i in range(0, count, SHORTLIST)]
    prior = torch.cat(predictor.likelihood(None, groups, texts)).double()
    if features is None:
        return {"pmi": prior.expand(count, -1).numpy(), "likelihood": prior.expand(count, -1).numpy()}
    pictures, words = predictor.embed(features, texts)
    cosine = (pictures @ words.T).double()
    short = torch.zeros_like(cosine, dtype=torch.bool)
    short.scatter_(1, cosine.topk(min(SHORTLIST, count), 1).indices, True)
    short.scatter_(0, cosine.topk(min(SHORTLIST, count), 0).indices, True)
    wanted = [row.nonzero().flatten().tolist() for row in short]
    likelihood = torch.full_like(cosine, -1e4) + cosine
    for row, (captions_of_row, values) in enumerate(
        zip(wanted, predictor.likelihood(features, wanted, texts), strict=True)
    ):
        likelihood[row, captions_of_row] = values.double()
    pmi = torch.where(short, likelihood - prior, likelihood)
    return {"embedding": cosine.numpy(), "likelihood": likelihood.numpy(), "pmi": pmi.numpy()}


def evaluate(
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    world: World,
    data: Data,
    *,
    tasks: Sequence[str] = TASKS,
    masking: bool = True,
    split: str = "test",
    report: Reporter = SILENT,
) -> tuple[dict[str, Any], EncodedTestSets, Outcome]:
    """The whole table as the JSON-able `results.json` (scores 0..100), with what it was made from."""
    started = time.perf_counter()
    model.eval()
    sets = build_test_sets(world, data, split=split)
    encoded = encode_test_sets(model, sets)
    own, own_by_condition = expert_scores(model.experts, list(scenes_of(split, 300, world)))
    results, main = full_table(
        model, tokenizer, encoded, tasks=tasks, masking=masking, most_masked=data.test_masked, report=report
    )
    results |= {"experts": own, "experts_by_condition": own_by_condition}
    results["seconds"] = {"evaluate": time.perf_counter() - started}
    return results, encoded, main


def full_table(
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    encoded: EncodedTestSets,
    *,
    tasks: Sequence[str],
    masking: bool,
    most_masked: int | None = None,
    report: Reporter = SILENT,
) -> tuple[dict[str, Any], Outcome]:
    """What `results.json` holds of some tasks: with pictures, blind and, if asked for, without each expert.

    Args:
        most_masked: so many items of each task, and no retrieval, are answered without each expert; None = all.
    """
    sets = encoded.sets
    main = run_tasks(Predictor(model, tokenizer), encoded, tasks, blind=False, label="evaluate", report=report)
    dark = run_tasks(Predictor(model, tokenizer), encoded, tasks, blind=True, label="evaluate blind", report=report)
    majority = majority_baseline(sets.training_questions, [item.question for item in sets.questions])
    blind = {task: max(dark.scores[task], 100 * majority.get(task, 0.0)) for task in tasks}
    names = model.experts.names
    masked = score_changes(model, tokenizer, encoded, main, tasks, most_masked, report) if masking else {}
    learned = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("model.experts."))
    results = {
        "schema": SCHEMA,
        "average": main.average,
        "blind_average": float(np.mean(list(blind.values()))),
        "tasks": {
            task: {
                "metric": METRIC[task],
                "score": main.scores[task],
                "n": len(main.per_item[task]),
                "blind": blind[task],
                "secondary": main.secondary.get(task, {}),
            }
            for task in tasks
        },
        "templates": template_scores(encoded, main, dark),
        "load": load_balance(main.shares, names),
        "shares": {task: dict(zip(names, s.mean(0).tolist(), strict=True)) for task, s in main.shares.items()},
        "shares_by_condition": shares_by_condition(encoded, main, names),
        "masking": {name: float(np.mean(list(changes.values()))) for name, changes in masked.items()},
        "masking_by_task": masked,
        "conditions": condition_scores(encoded, main),
        "params": {"total": sum(p.numel() for p in model.parameters()), "trainable": learned},
    }
    return results, main


def score_changes(
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    encoded: EncodedTestSets,
    main: Outcome,
    tasks: Sequence[str],
    most: int | None,
    report: Reporter,
) -> dict[str, dict[str, float]]:
    """The score of every task without an expert, less the score with all of them on the same items, by expert."""
    part = encoded
    if most is not None:
        tasks = [task for task in tasks if task not in RETRIEVAL_TASKS]
        part = first_items(encoded, tasks, most)
    whole = {task: 100 * float(main.per_item[task][:most].mean()) for task in tasks}
    return without_each_expert(model, tokenizer, part, whole, report) if tasks else {}


def without_each_expert(
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    encoded: EncodedTestSets,
    whole: Mapping[str, float],
    report: Reporter,
) -> dict[str, dict[str, float]]:
    """Points by which every task's score changes without an expert, by expert; below zero, it is missed.

    Args:
        whole: task -> score with all experts, of the same items.
    """
    found: dict[str, dict[str, float]] = {}
    for name in model.experts.names:
        without = Predictor(model, tokenizer, masked=[name])
        row = run_tasks(without, encoded, list(whole), blind=False, label=f"without {name}", report=report)
        found[name] = {task: row.scores[task] - score for task, score in whole.items()}
    return found


def first_items(encoded: EncodedTestSets, tasks: Sequence[str], items: int | None) -> EncodedTestSets:
    """The first ``items`` items of each task, with the features of their pictures."""
    questions, described, features = [], {}, {}
    for task in tasks:
        if task in VQA_TASKS:
            questions += [item for item in encoded.sets.questions if item.question.task == task][:items]
        else:
            described[task] = encoded.sets.described[task][:items]
            features[task] = {name: part.rows(slice(items)) for name, part in encoded.described[task].items()}
    return replace(encoded, sets=replace(encoded.sets, questions=questions, described=described), described=features)


def template_scores(encoded: EncodedTestSets, main: Outcome, dark: Outcome) -> dict[str, dict[str, float]]:
    """Of each template of the VQA tasks that were run: the score (0..100), how many questions, the blind score."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for task in VQA_TASKS:
        if task not in main.per_item:
            continue
        asked = [item.question for item in encoded.sets.questions if item.question.task == task]
        for question, right, guessed in zip(asked, main.per_item[task], dark.per_item[task], strict=True):
            found[question.template].append((right, guessed))
    scores = {}
    for name, both in found.items():
        score, blind = (100 * np.array(both, float).mean(0)).tolist()
        scores[name] = {"score": score, "n": len(both), "blind": blind}
    return scores


def scene_of(encoded: EncodedTestSets, task: str) -> list[Any]:
    """The scene of every item of a task, in the order of its scores."""
    if task in VQA_TASKS:
        return [encoded.sets.scenes[i.scene] for i in encoded.sets.questions if i.question.task == task]
    return encoded.sets.described[task] if task in CAPTION_TASKS else encoded.sets.pool


def condition_scores(encoded: EncodedTestSets, outcome: Outcome) -> dict[str, float]:
    """The average over tasks, per condition of the picture."""
    found = {}
    for name in encoded.suite.conditions:
        means = []
        for task, values in outcome.per_item.items():
            mine = np.array([encoded.suite.condition(scene) == name for scene in scene_of(encoded, task)])
            if mine.any():
                means.append(100 * float(values[mine].mean()))
        found[name] = float(np.mean(means)) if means else float("nan")
    return found


def shares_by_condition(
    encoded: EncodedTestSets, outcome: Outcome, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Mean share per expert, per condition of the picture."""
    rows = defaultdict(list)
    for task, shares in outcome.shares.items():
        for scene, share in zip(scene_of(encoded, task), shares, strict=True):
            rows[encoded.suite.condition(scene)].append(share)
    conditions = [name for name in encoded.suite.conditions if rows[name]]
    return {c: dict(zip(names, torch.stack(rows[c]).mean(0).tolist(), strict=True)) for c in conditions}
