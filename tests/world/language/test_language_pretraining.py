"""Warming the language model on scenes told in words."""

from __future__ import annotations

import pytest
import torch

from astrea.experts.protocol import ExpertFeatures
from astrea.recipes.recipe import LanguageModel, Schedule
from astrea.world.experts.compact import COMPACT
from astrea.world.language.pretraining import APART, LanguageObjective, garble, ideal_features, reading_accuracy
from astrea.world.language.tiny import tiny_language_model, tiny_tokenizer
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.questions import VQA_TASKS
from learning import learn


def objective(**options) -> LanguageObjective:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    model = tiny_language_model(LanguageModel(width=32, layers=2, heads=2, feed_forward=64), tokenizer)
    return LanguageObjective(model, tokenizer, 0, **options)


@pytest.fixture(scope="module")
def scenes():
    return [split_scene("train", index, 0) for index in range(40)]


@pytest.fixture(scope="module")
def fixed() -> LanguageObjective:
    return objective(steps=10)


def test_ideal_features_come_in_the_order_of_alignment(scenes):
    assert list(ideal_features(scenes[:2])) == list(COMPACT)


def test_no_fault_is_the_truth_itself(scenes):
    for features in ideal_features(scenes).values():
        told = garble(features, torch.Generator().manual_seed(0), 0.0)
        assert torch.equal(told.tokens, features.tokens)
        assert torch.equal(told.confidence, features.confidence)
        assert told.places is features.places


def test_faults_are_drops_and_mixtures_with_other_scenes(scenes):
    features = ideal_features(scenes * 5)["segmentation"]
    told = garble(features, torch.Generator().manual_seed(0), 1.0)
    filled = features.confidence > 0
    dropped = filled & (told.confidence == 0)
    changed = filled & (told.tokens != features.tokens).any(-1)
    assert 0.01 < dropped[filled].float().mean() < 0.12
    assert 0.1 < changed[filled].float().mean() < 0.4
    # An empty slot is never filled, and a mixture of two codes is a code.
    assert told.confidence[~filled].eq(0).all()
    assert torch.equal(told.tokens[~filled], features.tokens[~filled])
    total = told.tokens[filled][:, 7:15].sum(-1)
    assert torch.allclose(total, torch.ones_like(total), atol=1e-5)


def test_a_batch_is_a_function_of_seed_and_step(fixed):
    one, two, other = fixed.batch(5, 0, 6), objective(steps=10).batch(5, 0, 6), fixed.batch(5, 1, 6)
    assert torch.equal(one.features["detection"].tokens, two.features["detection"].tokens)
    assert torch.equal(one.present, two.present)
    assert torch.equal(one.joined, two.joined)
    assert one.source == two.source == fixed.describe(one)
    assert one.source != other.source
    assert not torch.equal(one.features["detection"].tokens, other.features["detection"].tokens)


def test_faults_come_late_and_some_rows_are_told_apart(fixed):
    early, late = fixed.batch(0, 0, 120), fixed.batch(10, 0, 120)
    assert early.present.all()
    assert 0.15 < (~late.present.all(1)).float().mean() < 0.5
    assert abs(early.joined.float().mean().item() - (1 - APART)) < 0.19  # five standard deviations


@torch.no_grad()
def test_what_a_missing_expert_says_is_not_read(fixed):
    batch = fixed.batch(0, 0, 4)
    present = torch.ones(4, 4, dtype=torch.bool)
    present[:, 1] = False
    noise = ExpertFeatures(
        torch.randn_like(batch.features["classification"].tokens), batch.features["classification"].confidence, None
    )
    one = fixed.logits(batch.packed, batch.features, present)
    asked = batch.packed.segments > 0
    noisy = batch.features | {"classification": noise}
    assert torch.equal(fixed.logits(batch.packed, noisy, present)[asked], one[asked])
    assert not torch.equal(fixed.logits(batch.packed, batch.features, ~present | present)[asked], one[asked])


@torch.no_grad()
def test_what_is_said_of_one_place_is_joined_where_it_is_to_be(fixed):
    batch = fixed.batch(0, 0, 4)
    asked = batch.packed.segments > 0
    yes, no = (torch.full((4,), value) for value in (True, False))
    one, two = (fixed.logits(batch.packed, batch.features, batch.present, joined) for joined in (yes, no))
    assert torch.equal(fixed.logits(batch.packed, batch.features)[asked], one[asked])
    assert not torch.equal(one[asked], two[asked])
    mixed = fixed.logits(batch.packed, batch.features, batch.present, torch.tensor([True, False, False, True]))
    assert torch.equal(mixed[0][asked[0]], one[0][asked[0]])
    assert torch.equal(mixed[1][asked[1]], two[1][asked[1]])


def test_every_weight_learns_and_the_loss_falls():
    warm = objective(steps=20, per_task=1)
    batch = warm.batch(0, 0, 8)
    warm.batch = lambda step, micro, size: batch
    schedule = Schedule(steps=20, batch=8, lr=5e-3, warmup=2)
    losses, reached = learn(warm, schedule)
    assert losses[-1] < 0.7 * losses[0]
    assert reached == {name for name, _ in warm.model.named_parameters()}


def test_the_gates_figure_names_every_task(fixed):
    told = reading_accuracy(fixed, scenes=25)
    assert set(told) <= set(VQA_TASKS)
    assert len(told) >= 6
    assert all(0 <= share <= 1 for share in told.values())
    assert fixed.model.training
    assert told == reading_accuracy(fixed, scenes=25)
