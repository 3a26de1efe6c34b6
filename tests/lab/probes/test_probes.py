"""The probes with their parts (but for `test_contribution.py`): masking, robustness, pareto and trust."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from astrea import AstreaConfig, AstreaForConditionalGeneration
from astrea.alignment.phrase_ids import spell
from astrea.common.errors import AstreaError
from astrea.common.progress import Reporter
from astrea.evaluation.generate import Predictor
from astrea.fusion.pruning import token_score
from astrea.fusion.reliability import select_reliable
from astrea.lab.probes import pareto as pareto_module
from astrea.lab.probes.pareto import HALVINGS, MOST, THRESHOLDS, fused, pareto, reading_from, shares_for, what_is_read
from astrea.lab.probes.probes import load_with_entropy, masking, probe
from astrea.lab.probes.robustness import CORRUPTIONS, corrupted, corrupted_test_sets, reliability_rates
from astrea.recipes.recipe import Data, World
from astrea.world.evaluation import runner
from astrea.world.evaluation.contribution import pictures_of, turns_of
from astrea.world.evaluation.runner import EncodedTestSets, Outcome, encode_test_sets, first_items, run_tasks
from astrea.world.evaluation.suite import DRAWN
from astrea.world.evaluation.tasks import build_test_sets

ASKED = ("counting", "attribute")
TASKS = (*ASKED, "caption")
ITEMS = 3


def score(text: str, truth: object) -> float:
    """Tells any two answers apart: the scores of a random model would all be zero."""
    return sum(place * byte for place, byte in enumerate(text.encode(), 1)) % 997 / 996


@pytest.fixture(scope="module", autouse=True)
def telling() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "vqa_accuracy", score)
        yield


@pytest.fixture(scope="module")
def encoded(tiny_model) -> EncodedTestSets:
    sets = build_test_sets(World(), Data(test_questions=4, test_captions=4, test_retrieval_groups=1))
    return replace(encode_test_sets(tiny_model, sets), suite=replace(DRAWN, caption_score=score))


@pytest.fixture(scope="module")
def few(encoded) -> EncodedTestSets:
    return first_items(encoded, TASKS, ITEMS)


@pytest.fixture(scope="module")
def run(tiny_model, tiny_processor):
    def run(encoded: EncodedTestSets, tasks=TASKS, **options) -> Outcome:
        predictor = Predictor(tiny_model, tiny_processor.tokenizer, **options)
        return run_tasks(predictor, encoded, tasks, blind=False, label="test", report=Reporter())

    return run


@pytest.fixture(scope="module")
def main(run, encoded) -> Outcome:
    return run(encoded)


@pytest.fixture(scope="module")
def whole(run, few) -> dict[str, float]:
    return run(few).scores


@pytest.fixture(scope="module")
def found(tiny_model, tiny_processor, encoded, main) -> dict:
    return probe(tiny_model, tiny_processor.tokenizer, encoded, main, tasks=TASKS, items=ITEMS, report=Reporter())


def without(encoded: EncodedTestSets, name: str) -> EncodedTestSets:
    """The same test sets, but nobody asked one expert."""
    return replace(
        encoded,
        questions={n: part for n, part in encoded.questions.items() if n != name},
        described={t: {n: p for n, p in parts.items() if n != name} for t, parts in encoded.described.items()},
    )


# The whole


def test_a_probe_is_json_and_has_every_part(found, tiny_model, encoded, main):
    names = tiny_model.experts.names
    json.dumps(found, allow_nan=False)
    assert found["tasks"] == list(TASKS)
    assert found["items"] == ITEMS
    assert list(found["masking"]) == list(found["trust"]) == list(found["load"]["mean"]) == names
    assert list(found["contribution"]) == list(found["shares"]) == list(TASKS)
    assert found["contribution"].keys() == found["shares"].keys()
    for task in TASKS:
        assert found["contribution"][task].keys() == found["shares"][task].keys()
        for shares in found["shares"][task].values():
            assert 0 < sum(shares.values()) < 1
    assert len(found["pareto"]) == len(THRESHOLDS)
    assert set(found["robustness"]) == {*CORRUPTIONS, "clean", "mean_loss"}
    load = main.shares
    assert found["load"]["mean"] == pytest.approx(
        dict(zip(names, torch.cat([load[task] for task in TASKS]).mean(0).tolist(), strict=True))
    )


def test_only_the_first_items_are_run(few, encoded, whole, main):
    assert Counter(item.question.task for item in few.sets.questions) == dict.fromkeys(ASKED, ITEMS)
    assert len(few.sets.described["caption"]) == len(few.described["caption"]["detection"].tokens) == ITEMS
    for task in TASKS:
        assert whole[task] == pytest.approx(100 * main.per_item[task][:ITEMS].mean())
    everything = first_items(encoded, TASKS, None)
    assert [len(turns_of(everything, task)) for task in TASKS] == [len(main.per_item[task]) for task in TASKS]


def test_tasks_that_cannot_be_probed_are_named(tiny_model, tiny_processor, encoded, main):
    for task in ("retrieval_i2t", "logic"):  # one that no probe can run, and one that was not evaluated
        with pytest.raises(AstreaError, match=task):
            probe(tiny_model, tiny_processor.tokenizer, encoded, main, tasks=("counting", task), report=Reporter())


def test_the_entropy_of_known_shares():
    shares = {"a": torch.tensor([[1.0, 0.0]]), "b": torch.tensor([[0.5, 0.5], [0.75, 0.25]])}
    figures = load_with_entropy(shares, ["x", "y"])
    assert figures["mean"] == {"x": 0.75, "y": 0.25}
    assert figures["entropy"] == pytest.approx(0.562335, abs=1e-6)
    assert figures["entropy_share"] == pytest.approx(0.811278, abs=1e-6)
    assert load_with_entropy({"a": torch.tensor([[1.0, 0.0]])}, ["x", "y"])["entropy"] == 0


# Masking and robustness


def test_masking_is_the_expert_not_being_there(found, run, few, whole, tiny_model):
    for name in tiny_model.experts.names:
        gone = run(without(few, name)).scores
        points = found["masking"][name]
        assert points["tasks"] == pytest.approx({task: gone[task] - whole[task] for task in TASKS})
        assert points["average"] == pytest.approx(np.mean(list(points["tasks"].values())))
    assert any(abs(points["average"]) > 1 for points in found["masking"].values())


def test_an_expert_that_says_nan_is_as_good_as_masked(found, few):
    name = "classification"
    for features in (few.questions, few.described["caption"]):
        assert (features[name].confidence > 0).any(1).all()  # it has something to say of every picture
    clean = found["robustness"]["clean"]
    assert found["robustness"]["nan"][name]["average"] - clean == pytest.approx(found["masking"][name]["average"])


def test_robustness_is_the_average_on_corrupted_features(found, run, few, whole, tiny_model):
    table = found["robustness"]
    assert table["clean"] == pytest.approx(np.mean(list(whole.values())))
    for kind in CORRUPTIONS:
        rows = {name: row["average"] for name, row in table[kind].items()}
        assert list(rows) == tiny_model.experts.names
        assert table["mean_loss"][kind] == pytest.approx(table["clean"] - np.mean(list(rows.values())))
    for kind in ("swapped", "frozen", "constant"):
        ill = corrupted_test_sets(few, "segmentation", kind)
        assert table[kind]["segmentation"]["average"] == pytest.approx(run(ill).average)
    assert len({row["average"] for kind in CORRUPTIONS for row in table[kind].values()} | {table["clean"]}) > 6


def test_what_a_corrupted_expert_says(encoded):
    features = encoded.questions
    own = features["detection"]
    swapped = corrupted(features, "detection", "swapped")["detection"]
    for told, true in zip(
        (swapped.tokens, swapped.confidence, swapped.places), (own.tokens, own.confidence, own.places), strict=True
    ):
        assert torch.equal(told[1:], true[:-1])
        assert torch.equal(told[0], true[-1])
    frozen = corrupted(features, "detection", "frozen")["detection"]
    assert frozen.tokens.shape == own.tokens.shape
    filled = (own.confidence > 0).sum(1)
    at = next(picture for picture, count in enumerate(filled) if count == filled.max())
    for told, true in ((frozen.tokens, own.tokens), (frozen.confidence, own.confidence)):
        assert all(torch.equal(picture, true[at]) for picture in told)
    constant = corrupted(features, "detection", "constant")["detection"]
    for picture in range(len(own.tokens)):
        surest = own.tokens[picture, own.confidence[picture].argmax()]
        assert (constant.tokens[picture] == surest).all()
    assert torch.equal(constant.confidence, own.confidence)
    assert torch.equal(constant.places, own.places)
    assert corrupted(features, "detection", "nan")["detection"].tokens.isnan().all()
    for kind in CORRUPTIONS:
        others = corrupted(features, "detection", kind)
        assert all(others[name] is part for name, part in features.items() if name != "detection")
    assert encoded.questions["detection"] is own
    assert own.tokens.isfinite().all()


# Pareto


def questions_of(predictor: Predictor, asked: list[str]) -> torch.Tensor:
    """The mean word of every question, one by one."""
    rows = []
    for text in asked:
        inputs = predictor.prompts([text], pictures=False)
        words = predictor.model.get_input_embeddings()(inputs["input_ids"])[inputs["question_mask"].bool()]
        rows.append(words.mean(0))
    return torch.stack(rows).detach()


def test_shares_are_those_of_the_answers(tiny_model, tiny_processor, encoded, main):
    found = shares_for(Predictor(tiny_model, tiny_processor.tokenizer), encoded, TASKS)
    for task in TASKS:
        torch.testing.assert_close(found[task], main.shares[task])


def test_contributions_may_come_from_larger_sets(tiny_model, tiny_processor, encoded, main, found):
    more = encode_test_sets(
        tiny_model, build_test_sets(World(), Data(test_questions=30, test_captions=4, test_retrieval_groups=1))
    )
    asked = probe(
        tiny_model, tiny_processor.tokenizer, encoded, main, tasks=("counting",), items=1, many=more, report=Reporter()
    )
    assert asked["contribution"]["counting"] != found["contribution"]["counting"]
    assert asked["calibration"]["cells"] > 0 == found["calibration"]["cells"]


def test_saving_reads_as_little_as_wanted_and_scores_every_task(found, encoded, run, tiny_model, tiny_processor, main):
    told = found["saving"]
    assert 0 < told["tokens_share"] <= 0.6
    read = []
    for threshold in (0.0, told["threshold"] - MOST / 2**HALVINGS):  # one step less would read too much
        with reading_from(tiny_model.fusion, threshold):
            tokens = what_is_read(Predictor(tiny_model, tiny_processor.tokenizer), encoded, TASKS)[0]
        read.append(float(tokens.sum(1).double().mean()))
    assert read[1] > 0.6 * read[0]
    assert told["difference"] == pytest.approx(told["average"] - main.average)
    with reading_from(tiny_model.fusion, told["threshold"]):
        assert run(encoded).average == pytest.approx(told["average"])
    assert tiny_model.fusion.threshold == 0


def test_nothing_is_saved_at_threshold_zero(found, whole):
    first = found["pareto"][0]
    assert first["threshold"] == 0
    assert first["average"] == pytest.approx(np.mean(list(whole.values())))
    assert first["tokens_share"] == 1


def test_a_finding_of_several_tokens_is_its_experts(few, tiny_model, tiny_processor):
    config = copy.deepcopy(tiny_model.config)
    experts = {name: tiny_model.experts[name] for name in tiny_model.experts.names}
    ids = spell("phrases", experts, tiny_processor.tokenizer, 1.0)
    config.findings, config.phrase_ids, config.fusion = "phrases", ids.model_dump(mode="json"), {"word_match": 0.0}
    model = AstreaForConditionalGeneration(config).eval()
    assert sum(model.alignment.counts) > sum(tiny_model.alignment.counts)
    tokens, read = what_is_read(Predictor(model, tiny_processor.tokenizer), few, TASKS[:1])
    owner = torch.arange(4).repeat_interleave(torch.tensor(model.alignment.counts))
    assert read.tolist() == [[bool(row[owner == e].any()) for e in range(4)] for row in tokens]
    assert read.any()


def test_every_point_is_what_its_threshold_gives(found, run, few, tiny_model, tiny_processor):
    owner = torch.arange(4).repeat_interleave(torch.tensor(tiny_model.alignment.counts))
    predictor = Predictor(tiny_model, tiny_processor.tokenizer)
    for point in found["pareto"]:
        with reading_from(tiny_model.fusion, point["threshold"]):
            assert point["average"] == pytest.approx(run(few).average)
        tokens, experts = [], []
        for task in TASKS:
            turns = turns_of(few, task)
            asked, pictures = [turn.question for _, turn in turns], [picture for picture, _ in turns]
            with torch.inference_mode():
                every = fused(predictor, asked, pictures_of(few, task), pictures)
                question_QD = questions_of(predictor, asked)
            shown = {name: part.rows(torch.tensor(pictures)) for name, part in pictures_of(few, task).items()}
            sure = tiny_model.alignment(shown).confidence
            promised = token_score(
                every.bias, every.shares.sum(-1), sure, every.valid, every.words, question_QD.unsqueeze(1)
            )[:, 0]
            read = every.valid & (promised >= point["threshold"])
            tokens.append(read.sum(1))
            experts.append(torch.stack([read[:, owner == e].any(1) for e in range(4)], 1).sum(1))
        assert point["tokens_read"] == pytest.approx(float(torch.cat(tokens).double().mean()))
        assert point["experts_read"] == pytest.approx(float(torch.cat(experts).double().mean()))
        assert point["tokens_share"] == pytest.approx(point["tokens_read"] / found["pareto"][0]["tokens_read"])
    read = [point["experts_read"] for point in found["pareto"]]
    assert read == sorted(read, reverse=True)
    assert read[0] > read[-1] + 1
    assert len({point["average"] for point in found["pareto"]}) > 2


def test_the_threshold_is_as_before_whatever_happens(tiny_model, tiny_processor, few, monkeypatch):
    monkeypatch.setattr(tiny_model.fusion, "threshold", 0.125)
    sweep_results = []

    def fail(*args, **options):
        sweep_results.append(tiny_model.fusion.threshold)
        if len(sweep_results) == 2:
            raise RuntimeError("no power")
        return Outcome({"counting": 1.0}, {}, {}, {}, {})

    monkeypatch.setattr(pareto_module, "run_tasks", fail)
    with pytest.raises(RuntimeError, match="no power"):
        pareto(tiny_model, tiny_processor.tokenizer, few, ASKED, Reporter())
    assert sweep_results[0] == 0 < sweep_results[1]
    assert tiny_model.fusion.threshold == 0.125
    pareto(tiny_model, tiny_processor.tokenizer, few, ASKED, Reporter())
    assert tiny_model.fusion.threshold == 0.125


def test_a_threshold_that_moves_nothing_is_not_run(tiny_model, tiny_processor, few, monkeypatch):
    runs = []

    def row(*args, **options):
        runs.append(tiny_model.fusion.threshold)
        return Outcome({"counting": float(len(runs))}, {}, {}, {}, {})

    monkeypatch.setattr(pareto_module, "run_tasks", row)
    monkeypatch.setattr(pareto_module, "THRESHOLDS", (0.0, 1e-9, 1e6, 1e7))
    points = pareto(tiny_model, tiny_processor.tokenizer, few, ASKED, Reporter())
    assert runs == [0.0, 1e6]
    assert [point["average"] for point in points] == [1, 1, 2, 2]


# Trust, and fusions without any of this


def test_trust_is_the_rate_of_being_believed(tiny_model, encoded, monkeypatch):
    names, trust = tiny_model.experts.names, tiny_model.fusion.trust
    sets = [encoded.questions, encoded.described["caption"]]

    def fickle(matrix):
        # The random judge believes nearly everybody; this one depends on what the expert says beside the others.
        mean_BED, _ = matrix.summary()
        return torch.sin(5 * (mean_BED - mean_BED.mean(1, keepdim=True)).sum(-1))

    monkeypatch.setattr(trust, "forward", fickle)

    everybody = torch.ones(len(names), dtype=torch.bool)

    @torch.no_grad()
    def honest(change=lambda features: features):
        return torch.cat(
            [select_reliable(fickle, tiny_model.alignment(change(features)), everybody) for features in sets]
        )

    rates = reliability_rates(tiny_model, encoded, TASKS)
    for index, name in enumerate(names):
        for kind, who in (
            ("clean", honest()),
            ("swapped", honest(lambda features, name=name: corrupted(features, name, "swapped"))),
        ):
            assert rates[name][kind] == pytest.approx(float(who[:, index].double().mean()))
    assert any(0 < rates[name]["clean"] < 1 for name in names)
    assert any(rates[name]["clean"] != rates[name]["swapped"] for name in names)


def test_a_fusion_without_threshold_and_trust(tiny_model, tiny_processor, few):
    config = AstreaConfig(**{**tiny_model.config.to_dict(), "strategy": "sequence_concat", "fusion": {}})
    model = AstreaForConditionalGeneration(config).eval()
    tokenizer = tiny_processor.tokenizer
    (point,) = pareto(model, tokenizer, few, ASKED, Reporter())
    rows = torch.tensor([picture for task in ASKED for picture, _ in turns_of(few, task)])
    filled = sum((part.confidence[rows] > 0).sum(1) for part in few.questions.values())
    assert point["tokens_read"] == pytest.approx(float(filled.double().mean()))
    assert point["tokens_share"] == 1
    assert point["experts_read"] == len(model.experts.names)
    assert reliability_rates(model, few, ASKED) is None
    assert not hasattr(model.fusion, "threshold")


def test_the_same_again(tiny_model, tiny_processor, few, whole, found):
    assert masking(tiny_model, tiny_processor.tokenizer, few, whole, Reporter()) == found["masking"]
