from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from astrea.common.files import write_json_atomic
from astrea.common.progress import Reporter
from astrea.data.feature_cache import FeatureCache
from astrea.evaluation import generate
from astrea.evaluation.generate import Answered, Predictor
from astrea.evaluation.metrics.balance import load_balance
from astrea.recipes.recipe import Data, World
from astrea.report.page import write_report
from astrea.report.results import parse_results
from astrea.report.summary import terminal_table
from astrea.world.evaluation import runner
from astrea.world.evaluation.runner import EncodedTestSets, Outcome, encode_test_sets, evaluate, rank_pool, run_tasks
from astrea.world.evaluation.tasks import CAPTION_TASKS, RETRIEVAL_TASKS, TASKS, build_test_sets
from astrea.world.scenes.captions import captions
from astrea.world.scenes.questions import VQA_TASKS, majority_baseline
from astrea.world.scenes.vocabulary import CONDITIONS
from few_scenes import limit_scenes

EXPERTS = ["captioning", "classification", "segmentation", "detection"]
SMALL = Data(test_questions=4, test_captions=4, test_retrieval_groups=2)
POOL = 8
Table = tuple[dict[str, Any], EncodedTestSets, Outcome]


@pytest.fixture(scope="module")
def run(tiny_model, tiny_processor):
    """Evaluates the tiny model on few items; its experts on 20 scenes instead of 300."""
    with pytest.MonkeyPatch.context() as patch:
        limit_scenes(patch)

        def run(**options: Any) -> Table:
            return evaluate(tiny_model, tiny_processor.tokenizer, World(), SMALL, report=Reporter(), **options)

        yield run


@pytest.fixture(scope="module")
def table(run) -> Table:
    return run()


@pytest.fixture(scope="module")
def results(table) -> dict[str, Any]:
    return table[0]


@pytest.fixture(scope="module")
def encoded(table) -> EncodedTestSets:
    return table[1]


def row(
    predictor: Predictor, encoded: EncodedTestSets, tasks: Sequence[str] = TASKS, *, blind: bool = False
) -> Outcome:
    return run_tasks(predictor, encoded, tasks, blind=blind, label="test", report=Reporter())


# The table


def test_the_twelve_tasks_each_with_its_metric(results):
    assert tuple(results["tasks"]) == TASKS
    for task, entry in results["tasks"].items():
        assert entry.keys() == {"metric", "score", "n", "blind", "secondary"}
        assert 0 <= entry["score"] <= 100
        assert 0 <= entry["blind"] <= 100
        assert entry["n"] == (POOL if task in RETRIEVAL_TASKS else 4)
    metrics = {task: entry["metric"] for task, entry in results["tasks"].items()}
    assert {metrics[task] for task in VQA_TASKS} == {"vqa_accuracy"}
    assert {metrics[task] for task in CAPTION_TASKS} == {"scene_f1"}
    assert {metrics[task] for task in RETRIEVAL_TASKS} == {"recall@1"}
    secondary = {task: set(entry["secondary"]) for task, entry in results["tasks"].items()}
    assert secondary["counting"] == set()
    assert secondary["caption"] == secondary["caption_novel"] == {"cider_d", "bleu4", "rouge_l"}
    assert secondary["retrieval_i2t"] == {"recall@5", "recall@10", "recall@1_embedding_only"}


def test_averages_are_means_over_the_tasks(results):
    assert results["average"] == pytest.approx(np.mean([e["score"] for e in results["tasks"].values()]))
    assert results["blind_average"] == pytest.approx(np.mean([e["blind"] for e in results["tasks"].values()]))


def test_the_blind_row_is_the_better_of_a_blind_model_and_the_majority_answer(
    results, encoded, tiny_model, tiny_processor
):
    dark = row(Predictor(tiny_model, tiny_processor.tokenizer), encoded, blind=True)
    assert dark.shares == {}
    majority = majority_baseline(encoded.sets.training_questions, [item.question for item in encoded.sets.questions])
    for task in TASKS:
        blind = results["tasks"][task]["blind"]
        assert blind == pytest.approx(max(dark.scores[task], 100 * majority.get(task, 0)))
    assert any(majority[task] > 0 for task in VQA_TASKS)
    assert dark.scores["retrieval_t2i"] == 100 / POOL
    # Without a picture every picture gets the same caption.
    assert len(set(dark.answers["caption"])) == 1


def test_shares_are_told_everywhere(results):
    for shares in [*results["shares"].values(), *results["shares_by_condition"].values(), results["load"]["mean"]]:
        assert list(shares) == EXPERTS
        assert 0 < sum(shares.values()) < 1
    assert tuple(results["shares"]) == TASKS


def test_the_load_is_weighed_by_questions(results):
    count = {task: entry["n"] for task, entry in results["tasks"].items()}
    mean = [
        sum(results["shares"][task][name] * n for task, n in count.items()) / sum(count.values()) for name in EXPERTS
    ]
    load = results["load"]
    assert list(load["mean"].values()) == pytest.approx(mean, abs=1e-5)
    assert load["cv"] == pytest.approx(np.std(mean) / np.mean(mean), abs=1e-4)
    assert load["max_over_mean"] == pytest.approx(max(mean) / np.mean(mean), abs=1e-4)


def test_load_balance_of_known_shares():
    shares = {"a": torch.tensor([[1.0, 0.0]]), "b": torch.tensor([[0.5, 0.5], [0.75, 0.25]])}
    assert load_balance(shares, ["x", "y"]) == {
        "mean": {"x": 0.75, "y": 0.25},
        "cv": pytest.approx(0.5),
        "max_over_mean": pytest.approx(1.5),
    }
    assert load_balance({}, ["x"]) == {}


def test_masking_takes_each_expert_away(results, encoded, tiny_model, tiny_processor):
    assert list(results["masking"]) == list(results["masking_by_task"]) == EXPERTS
    for name, by_task in results["masking_by_task"].items():
        assert tuple(by_task) == TASKS
        assert results["masking"][name] == pytest.approx(np.mean(list(by_task.values())))
    name = "segmentation"
    masked = row(Predictor(tiny_model, tiny_processor.tokenizer, masked=[name]), encoded, ("counting", "retrieval_t2i"))
    for task, shares in masked.shares.items():
        assert (shares[:, EXPERTS.index(name)] == 0).all()
        assert (shares.sum(1) > 0).all()
        gap = results["masking_by_task"][name][task]
        assert gap == pytest.approx(masked.scores[task] - results["tasks"][task]["score"])


def test_some_items_without_each_expert_are_compared_with_the_same_items(tiny_model, tiny_processor, encoded, table):
    main, some = table[2], ("counting", "caption", "retrieval_t2i")
    found = runner.score_changes(tiny_model, tiny_processor.tokenizer, encoded, main, some, 2, Reporter())
    assert list(found) == EXPERTS
    masked = row(Predictor(tiny_model, tiny_processor.tokenizer, masked=[EXPERTS[0]]), encoded, some[:2])
    for task in some[:2]:  # retrieval among fewer pictures would be another task
        lost = masked.per_item[task][:2].mean() - main.per_item[task][:2].mean()
        assert found[EXPERTS[0]][task] == pytest.approx(100 * lost, abs=1e-4)
    assert all(set(changes) == set(some[:2]) for changes in found.values())


def test_conditions_are_means_over_the_tasks_that_have_them(results, table, encoded):
    main = table[2]
    assert list(results["conditions"]) == list(CONDITIONS)
    for index, name in enumerate(CONDITIONS):
        means = []
        for task, values in main.per_item.items():
            scenes = runner.scene_of(encoded, task)
            assert len(scenes) == len(values)
            mine = [value for value, scene in zip(values, scenes, strict=True) if scene.condition == index]
            means += [100 * np.mean(mine)] if mine else []
        assert results["conditions"][name] == pytest.approx(np.mean(means) if means else np.nan, nan_ok=True)


def test_experts_and_size(results, tiny_model):
    assert {name: set(scores) for name, scores in results["experts"].items()} == {
        "captioning": {"CIDEr-D", "word_accuracy"},
        "classification": {"mAP", "F1"},
        "segmentation": {"mIoU"},
        "detection": {"AP50"},
    }
    assert all(set(table) <= set(CONDITIONS) for table in results["experts_by_condition"].values())
    assert results["params"]["total"] == sum(p.numel() for p in tiny_model.parameters())
    frozen = sum(p.numel() for p in tiny_model.experts.parameters())
    assert results["params"]["total"] - results["params"]["trainable"] == frozen
    assert results["seconds"]["evaluate"] > 0


def test_it_is_what_the_report_and_the_terminal_read(results, tmp_path):
    write_json_atomic(tmp_path / "results.json", results)
    parsed = parse_results(json.loads((tmp_path / "results.json").read_text()), "results.json")
    assert tuple(parsed.tasks) == TASKS
    assert parsed.expert_names() == EXPERTS
    page = write_report(tmp_path).read_text("utf-8")
    assert all(name.replace("_", " ") in page.replace("_", " ") for name in (*TASKS, *EXPERTS))
    assert terminal_table(results).row_count == 13


def test_the_same_again_and_some_tasks_alone(run, results):
    some = ("counting", "caption_novel", "retrieval_i2t")
    again, _, outcome = run(tasks=some, masking=False)
    assert set(again["tasks"]) == set(again["shares"]) == set(outcome.per_item) == set(some)
    for task in some:
        assert again["tasks"][task] == results["tasks"][task]
        assert again["shares"][task] == results["shares"][task]
    assert again["experts"] == results["experts"]
    assert again["experts_by_condition"] == results["experts_by_condition"]
    assert again["masking"] == again["masking_by_task"] == {}
    assert again["average"] == pytest.approx(np.mean([again["tasks"][task]["score"] for task in some]))


def test_validation_is_another_set(run, results):
    other, encoded, _ = run(tasks=("caption",), masking=False, split="validation")
    assert len(encoded.sets.described["caption"]) == 4
    assert other["experts"] != results["experts"]


# Faultless and useless models


class Stub(Predictor):
    """Answers from the truth (or with nonsense) instead of from the model."""

    def __init__(self, model, tokenizer, encoded: EncodedTestSets, *, right: bool) -> None:
        super().__init__(model, tokenizer)
        self.right = right
        self.truth = {(item.question.text, item.scene): item.question.answer for item in encoded.sets.questions}
        self.encoded = encoded

    def answer(self, questions, features, pictures, *, longest=6, tick=None) -> Answered:
        texts = []
        for number, question in enumerate(questions):
            if (question, int(pictures[number])) in self.truth and features is self.encoded.questions:
                texts.append(self.truth[question, int(pictures[number])])
            else:
                task = next(t for t in CAPTION_TASKS if features is self.encoded.described[t])
                texts.append(captions(self.encoded.sets.described[task][int(pictures[number])], 1)[0])
        return Answered(texts if self.right else ["zebra"] * len(texts), None)

    def likelihood(self, features, wanted, texts, *, batch=8):
        if features is None:
            return [torch.zeros(len(row)) for row in wanted]
        sign = 1.0 if self.right else -1.0
        return [
            torch.tensor([sign if caption == picture else 0.0 for caption in row]) for picture, row in enumerate(wanted)
        ]


def test_the_truth_scores_100_and_nonsense_0(encoded, tiny_model, tiny_processor):
    best = row(Stub(tiny_model, tiny_processor.tokenizer, encoded, right=True), encoded)
    assert best.scores == pytest.approx(dict.fromkeys(TASKS, 100.0))
    assert best.average == pytest.approx(100)
    # Three wordings of the same facts stand beside the canonical one, which is said.
    assert best.secondary["caption"]["rouge_l"] > 99
    worst = row(Stub(tiny_model, tiny_processor.tokenizer, encoded, right=False), encoded)
    assert worst.scores == dict.fromkeys(TASKS, 0.0)


# Ranking captions by likelihood


def test_the_language_model_ranks_only_what_the_embeddings_keep(encoded, tiny_model, tiny_processor, monkeypatch):
    monkeypatch.setattr(runner, "SHORTLIST", 2)
    predictor = Predictor(tiny_model, tiny_processor.tokenizer)
    texts = encoded.sets.pool_captions
    scores = rank_pool(predictor, encoded.pool, texts)
    cosine, likelihood, pmi = scores["embedding"], scores["likelihood"], scores["pmi"]
    assert cosine.shape == likelihood.shape == pmi.shape == (POOL, POOL)
    assert np.abs(cosine).max() <= 1 + 1e-6
    kept = likelihood > -5000
    by_row = np.argsort(-cosine, 1)[:, :2]
    by_column = np.argsort(-cosine, 0)[:2]
    assert all(kept[i, by_row[i]].all() and kept[by_column[:, i], i].all() for i in range(POOL))
    assert kept.sum() <= 4 * POOL
    # Beyond the shortlist the order is the embeddings'.
    for i in range(POOL):
        rest = np.flatnonzero(~kept[i])
        assert (np.argsort(likelihood[i, rest]) == np.argsort(cosine[i, rest])).all()
    prior = torch.cat(predictor.likelihood(None, [list(range(POOL))], texts)).double().numpy()
    assert (likelihood - pmi)[kept] == pytest.approx(np.broadcast_to(prior, (POOL, POOL))[kept], abs=1e-4)


def test_rows_with_too_many_logits_for_one_pass_take_several(encoded, tiny_model, tiny_processor, monkeypatch):
    predictor, texts = Predictor(tiny_model, tiny_processor.tokenizer), encoded.sets.pool_captions
    wanted = [[0, 1], [2], [], [1, 0, 2]][:POOL]
    together = predictor.likelihood(encoded.pool, wanted, texts)
    passes, forward = [], tiny_model.forward
    monkeypatch.setattr(tiny_model, "forward", lambda **given: passes.append(given) or forward(**given))
    monkeypatch.setattr(generate, "LOGITS", 1)
    alone = predictor.likelihood(encoded.pool, wanted, texts)
    assert [len(given["input_ids"]) for given in passes] == [1] * len(wanted)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_packed_likelihoods_are_those_of_the_captions_alone(encoded, tiny_model, tiny_processor):
    predictor = Predictor(tiny_model, tiny_processor.tokenizer)
    texts = encoded.sets.pool_captions[:3]
    together = predictor.likelihood(encoded.pool, [[0, 1, 2]] * POOL, texts)
    for index in range(3):
        alone = predictor.likelihood(encoded.pool, [[index]] * POOL, texts, batch=3)
        assert torch.cat(alone).tolist() == pytest.approx([float(t[index]) for t in together], abs=1e-3)
    assert torch.stack(together).std(0).min() > 1e-5  # the picture matters


def test_batches_do_not_matter(encoded, tiny_model, tiny_processor):
    questions = [item.question.text for item in encoded.sets.questions]
    pictures = torch.tensor([item.scene for item in encoded.sets.questions])
    one, many = (
        Predictor(tiny_model, tiny_processor.tokenizer, batch=batch).answer(questions, encoded.questions, pictures)
        for batch in (5, 64)
    )
    assert one.texts == many.texts
    assert torch.allclose(one.shares, many.shares, atol=1e-5)


def test_what_the_cache_keeps_of_test_pictures_is_what_experts_see(tiny_model, tmp_path):
    def values(encoded: EncodedTestSets) -> dict[str, torch.Tensor]:
        groups = {"questions": encoded.questions, "pool": encoded.pool, **encoded.described}
        return {
            f"{group}/{name}/{part.name}": value
            for group, features in groups.items()
            for name, found in features.items()
            for part in fields(found)
            if (value := getattr(found, part.name)) is not None
        }

    sets = build_test_sets(World(), SMALL)
    wanted = values(encode_test_sets(tiny_model, sets))
    for first in (True, False):  # computed and stored, then read
        found = values(encode_test_sets(tiny_model, sets, FeatureCache(tmp_path)))
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        if first:
            entries = sorted(tmp_path.rglob("*.safetensors"))
    assert entries
    assert sorted(tmp_path.rglob("*.safetensors")) == entries
    encode_test_sets(tiny_model, build_test_sets(World(), SMALL, split="validation"), FeatureCache(tmp_path))
    assert len(list(tmp_path.rglob("*.safetensors"))) > len(entries)
