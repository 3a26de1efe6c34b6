"""What settings report, of a model that was never trained: the parts, their sizes, and what must hold of any model."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from astrea.common.progress import Reporter
from astrea.data.feature_cache import FeatureCache
from astrea.evaluation.generate import Predictor
from astrea.fusion.astrea import AstreaFusion
from astrea.fusion.peers.routed import Routed
from astrea.fusion.peers.sequence_concat import SequenceConcat
from astrea.lab.settings import reports
from astrea.lab.settings.budget import BUDGETS, RULES
from astrea.lab.settings.reports import FAULTS, REPORTS, Measured, weighs
from astrea.recipes.recipe import Data, World
from astrea.world.evaluation.conflict import conflict_items
from astrea.world.evaluation.runner import encode_test_sets, run_tasks
from astrea.world.evaluation.tasks import build_test_sets
from astrea.world.scenes.questions import VQA_TASKS
from drawn_matrix import LAYOUT

DATA = Data(test_questions=3, test_captions=2, test_retrieval_groups=1)
FEW = ("counting",)


@pytest.fixture(scope="module")
def run(tiny_model, tiny_processor, tmp_path_factory) -> Measured:
    encoded = encode_test_sets(tiny_model, build_test_sets(World(), DATA))
    predictor = Predictor(tiny_model, tiny_processor.tokenizer)
    outcome = run_tasks(predictor, encoded, VQA_TASKS, blind=False, label="test", report=Reporter())
    cache = FeatureCache(tmp_path_factory.mktemp("cache"))
    return Measured(tiny_model, tiny_processor.tokenizer, encoded, outcome, World(), DATA, cache, 0)


@pytest.fixture(autouse=True)
def fewer(monkeypatch) -> None:
    monkeypatch.setattr(reports, "PROBE_TASKS", FEW)


def test_accuracy_is_told_apart_by_whether_experts_disagree(run, monkeypatch):
    items = run.encoded.sets.questions
    split = conflict_items(items, run.encoded.questions, run.labels)
    assert 0 < split.sum() < len(items)
    # A model that is right exactly where experts disagree.
    for task in VQA_TASKS:
        mine = [hit for hit, item in zip(split, items, strict=True) if item.question.task == task]
        monkeypatch.setitem(run.outcome.per_item, task, np.array(mine, dtype=float))
    assert REPORTS["conflict"](run) == {"items": split.sum(), "conflict": 100.0, "agreement": 0.0}


def test_every_fault_is_measured_on_the_experts_that_it_concerns(run):
    found = REPORTS["faults"](run)
    assert list(found) == ["clean", *FAULTS]
    everyone = set(run.model.experts.names)
    assert {"segmentation"} <= set(found["wrong_colour"]) < everyone  # tags know no colours
    assert set(found["late"]) == everyone
    assert all(0 <= row["believed"] <= 1 for kind in FAULTS for row in found[kind].values())
    json.dumps(found, allow_nan=False)


def test_what_a_fault_costs_is_told_of_the_questions_in_conflict_too(run, monkeypatch):
    """A model that loses exactly the questions about which experts disagree with the faulty one."""
    items = run.encoded.sets.questions

    def asked(self, encoded, masked=()):
        split = conflict_items(items, encoded.questions, self.labels)
        lost = split & (encoded is not whole[0])
        tasks = np.array([item.question.task for item in items])
        return replace(run.outcome, per_item={task: 1.0 - lost[tasks == task] for task in VQA_TASKS})

    whole = [run.encoded]
    monkeypatch.setattr(reports, "first_items", lambda encoded, tasks, count: encoded)
    monkeypatch.setattr(reports.Measured, "asked", asked)
    monkeypatch.setattr(reports, "FAULTS", ("half_swapped",))
    found = REPORTS["faults"](run)["half_swapped"]
    assert {row["conflict_loss"] for row in found.values()} == {100.0}


def test_gate_weights_are_held_against_contributions_and_pictures(run, monkeypatch):
    found = REPORTS["gate_weights"](run)
    json.dumps(found, allow_nan=False)
    assert found["picture_share"] is None  # nothing is asked twice
    assert set(found["items"]) == {"rank_correlation", "within_template", "error", "bins"}
    # Of a gate that is always right about single items.
    known = {task: torch.rand(3, len(run.labels), generator=torch.Generator().manual_seed(0)) for task in FEW}
    gains = {task: (value + 0.005).sqrt() * run.model.fusion.allocator.load_bias.exp() for task, value in known.items()}
    right = {task: gain / (1 + gain.sum(-1, keepdim=True)) for task, gain in gains.items()}
    monkeypatch.setattr(reports, "contributions", lambda *given: known)
    monkeypatch.setattr(reports, "shares_for", lambda *given: right)
    assert REPORTS["gate_weights"](run)["items"]["rank_correlation"] == pytest.approx(1)


def test_of_a_fusion_without_a_gate_there_are_no_gate_weights(run, monkeypatch):
    monkeypatch.setattr(reports, "load_bias", lambda model: None)
    assert REPORTS["gate_weights"](run) == {}


def test_every_rule_is_measured_at_every_budget(run):
    found = REPORTS["budgets"](run)
    names = run.model.experts.names
    sizes = dict(zip(names, run.model.alignment.counts, strict=True))
    assert set(found["worth"]) == set(found["seconds"]) == set(names)
    for tokens, experts in BUDGETS:
        row = found[f"{tokens}/{experts}"]
        assert set(row) == {*RULES, "gate"}
        for rule in RULES:
            assert len(row[rule]["experts"]) <= experts
            assert sum(sizes[name] for name in row[rule]["experts"]) <= tokens
        assert sum(row["gate"]["experts"].values()) <= experts
        for each in row.values():
            assert 0 < each["flops_share"] <= 1
            assert 0 < each["seconds_share"] <= 1
    whole = {"average": found["all"]["average"], "flops_share": 1.0, "seconds_share": 1.0}
    assert found["48/8"]["first_k"] == {**whole, "experts": names}
    assert found["48/8"]["gate"] == {**whole, "experts": dict.fromkeys(names, 1.0)}
    best = max(found["worth"], key=found["worth"].get)
    assert found["16/2"]["fixed_top_k"]["experts"][0] == best
    json.dumps(found, allow_nan=False)


def test_the_gate_is_no_rule_of_a_strategy_that_weighs_nothing(run, monkeypatch):
    monkeypatch.setattr(reports, "BUDGETS", BUDGETS[:1])
    monkeypatch.setattr(reports, "weighs", lambda fusion: weighs(AstreaFusion(LAYOUT, allocator=False)))
    assert set(REPORTS["budgets"](run)["16/2"]) == set(RULES)


def test_what_weighs_experts():
    assert weighs(AstreaFusion(LAYOUT))
    assert weighs(Routed(LAYOUT))
    assert not weighs(SequenceConcat(LAYOUT))
